// What a process inside a sandbox can get from the kernel: one line a try, `name errno`, 0 where it worked.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

static void try(const char *name, long number) {
    errno = 0;
    long got = syscall(number, 1, 0, 0, 0, 0, 0);
    printf("%s %d\n", name, got == -1 ? errno : 0);
}

static void family(const char *name, int family) {
    int fd = socket(family, family == 17 ? SOCK_RAW : SOCK_STREAM, 0);
    printf("socket_%s %d\n", name, fd < 0 ? errno : 0);
    if (fd >= 0) close(fd);
}

static void netlink(const char *name, int protocol) {
    int fd = socket(AF_NETLINK, SOCK_RAW, protocol);
    printf("netlink_%s %d\n", name, fd < 0 ? errno : 0);
    if (fd >= 0) close(fd);
}

int main(int argc, char **argv) {
    if (argc > 1 && !strcmp(argv[1], "fill")) {
        // As many processes as there is room for; all of them stay.
        pid_t child;
        while ((child = fork()) > 0) {}
        if (child < 0 && write(1, "full\n", 5) != 5) return 1;
        pause();
        return 0;
    }
    if (argc > 1 && !strcmp(argv[1], "x32")) {
        printf("x32 %ld\n", syscall(0x40000000 + 39));
        return 0;
    }
#ifdef __x86_64__
    if (argc > 1 && !strcmp(argv[1], "i386")) {
        long got;
        __asm__ volatile("int $0x80" : "=a"(got) : "a"(20));
        printf("i386 %ld\n", got);
        return 0;
    }
#endif
    try("mount", SYS_mount);
    try("umount2", SYS_umount2);
    try("pivot_root", SYS_pivot_root);
    try("chroot", SYS_chroot);
    try("fsopen", 430);
    try("open_tree", 428);
    try("move_mount", 429);
    try("mount_setattr", 442);
    try("unshare", SYS_unshare);
    try("setns", SYS_setns);
    try("ptrace", SYS_ptrace);
    try("process_vm_readv", SYS_process_vm_readv);
    try("process_vm_writev", SYS_process_vm_writev);
    try("pidfd_getfd", 438);
    try("keyctl", SYS_keyctl);
    try("add_key", SYS_add_key);
    try("request_key", SYS_request_key);
    try("io_uring_setup", 425);
    try("io_uring_enter", 426);
    try("io_uring_register", 427);
    try("bpf", SYS_bpf);
    try("perf_event_open", SYS_perf_event_open);
    try("userfaultfd", SYS_userfaultfd);
    try("kexec_load", SYS_kexec_load);
    try("finit_module", SYS_finit_module);
    try("open_by_handle_at", SYS_open_by_handle_at);
    try("fanotify_init", SYS_fanotify_init);
    try("syslog", SYS_syslog);
    try("sethostname", SYS_sethostname);
    try("clone3", 435);
    errno = 0;
    long child = syscall(SYS_clone, CLONE_NEWUSER | 17, 0, 0, 0, 0);
    if (child == 0) _exit(0);
    printf("clone_newuser %d\n", child < 0 ? errno : 0);
    family("vsock", 40);
    family("packet", 17);
    family("alg", 38);
    family("xdp", 44);
    family("unix", AF_UNIX);
    family("inet", AF_INET);
    family("inet6", AF_INET6);
    netlink("route", 0);
    netlink("audit", 9);
    netlink("netfilter", 12);
    int pair[2];
    printf("socketpair_unix %d\n", socketpair(AF_UNIX, SOCK_STREAM, 0, pair) < 0 ? errno : 0);
    int tty = open("/dev/tty", O_RDWR);
    printf("open_tty %d\n", tty < 0 ? errno : 0);
    printf("tiocsti %d\n", ioctl(0, 0x5412, "x") < 0 ? errno : 0);
    printf("tiocsti_high_bits %d\n", syscall(SYS_ioctl, 0, 0xffffffff00005412UL, "x") < 0 ? errno : 0);
    printf("tioclinux %d\n", ioctl(0, 0x541c, "x") < 0 ? errno : 0);
    return 0;
}
