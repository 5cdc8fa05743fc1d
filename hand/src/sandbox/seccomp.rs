//! The system calls that nothing in a sandbox needs and that have led out of sandboxes before.
//!
//! A deny list, in three filters as each has one answer: EPERM for most; ENOSYS for clone3, so that libc falls back to
//! clone, whose flags a filter can read; EAFNOSUPPORT for all sockets but unix, inet, inet6 and
//! netlink for routes, as a network namespace does not hold the others (AF_VSOCK reaches the hypervisor). Every foreign ABI is killed.

use libc::{c_long, sock_filter};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};
use std::collections::BTreeMap;

#[derive(thiserror::Error, Debug)]
pub enum Error {
    #[error("make a filter for this processor")]
    Filter(#[from] seccompiler::BackendError),
    #[error("have the kernel take the filter")]
    Apply(#[from] seccompiler::Error),
}

/// Calls that are denied whatever their arguments.
const DENIED: &[c_long] = &[
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_mount_setattr,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_kexec_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_open_by_handle_at,
    libc::SYS_name_to_handle_at,
    libc::SYS_fanotify_init,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_reboot,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_syslog,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_vhangup,
    libc::SYS_move_pages,
    libc::SYS_migrate_pages,
    libc::SYS_mbind,
    libc::SYS_set_mempolicy,
    libc::SYS_memfd_secret,
    // Newer than the table: quotactl_fd, statmount, listmount, open_tree_attr. One number on all processors.
    443,
    457,
    458,
    467,
];

#[cfg(target_arch = "x86_64")]
const DENIED_HERE: &[c_long] =
    &[libc::SYS_iopl, libc::SYS_ioperm, libc::SYS_modify_ldt, libc::SYS_uselib, libc::SYS_kexec_file_load];
#[cfg(not(target_arch = "x86_64"))]
const DENIED_HERE: &[c_long] = &[];

/// New namespaces by clone; the bits of CLONE_NEW*.
const CLONE_NEW: u64 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET) as u64
    // CLONE_NEWTIME
    | 0x80;
const FAMILIES: [i32; 4] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];
/// Pushing characters into a terminal's input, and the console's own ioctl for it.
const TERMINAL_INPUT: [u64; 2] = [0x5412, 0x541c];
const LOW_32: u64 = 0xffff_ffff;

/// The filters, each as the bytes that bubblewrap loads.
pub fn filters() -> Result<Vec<Vec<u8>>, Error> {
    Ok(programs()?.iter().map(bytes).collect())
}

/// Put them on this process, which must not have started a thread, and all that it will start.
pub fn restrict() -> Result<(), Error> {
    programs()?.iter().try_for_each(|program| Ok(seccompiler::apply_filter(program)?))
}

fn programs() -> Result<Vec<BpfProgram>, Error> {
    let mut denied: BTreeMap<c_long, Vec<SeccompRule>> =
        DENIED.iter().chain(DENIED_HERE).map(|&call| (call, Vec::new())).collect();
    let clone: Result<Vec<_>, Error> = (0..32)
        .map(|bit| 1u64 << bit)
        .filter(|bit| CLONE_NEW & bit != 0)
        .map(|bit| rule(vec![(0, SeccompCmpOp::MaskedEq(bit), bit)]))
        .collect();
    denied.insert(libc::SYS_clone, clone?);
    let ioctl: Result<Vec<_>, Error> =
        TERMINAL_INPUT.iter().map(|&op| rule(vec![(1, SeccompCmpOp::MaskedEq(LOW_32), op)])).collect();
    denied.insert(libc::SYS_ioctl, ioctl?);

    let netlink = u64::from(libc::AF_NETLINK.unsigned_abs());
    let other_family =
        rule(FAMILIES.iter().map(|&family| (0, SeccompCmpOp::Ne, u64::from(family.unsigned_abs()))).collect())?;
    let other_netlink = rule(vec![
        (0, SeccompCmpOp::Eq, netlink),
        (2, SeccompCmpOp::Ne, u64::from(libc::NETLINK_ROUTE.unsigned_abs())),
    ])?;
    let sockets =
        [(libc::SYS_socket, vec![other_family.clone(), other_netlink]), (libc::SYS_socketpair, vec![other_family])];
    let clone3 = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);

    Ok(vec![
        foreign_abi(filter(denied, libc::EPERM)?),
        filter(clone3, libc::ENOSYS)?,
        filter(BTreeMap::from(sockets), libc::EAFNOSUPPORT)?,
    ])
}

/// All of: argument `index`, compared as 32 bits (the kernel ignores the rest of these).
fn rule(conditions: Vec<(u8, SeccompCmpOp, u64)>) -> Result<SeccompRule, Error> {
    let conditions: Result<Vec<_>, _> = conditions
        .into_iter()
        .map(|(index, op, value)| SeccompCondition::new(index, SeccompCmpArgLen::Dword, op, value))
        .collect();
    Ok(SeccompRule::new(conditions?)?)
}

fn filter(rules: BTreeMap<c_long, Vec<SeccompRule>>, errno: i32) -> Result<BpfProgram, Error> {
    let errno = SeccompAction::Errno(errno.unsigned_abs());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, errno, std::env::consts::ARCH.try_into()?)?;
    Ok(filter.try_into()?)
}

/// The filter itself kills any other architecture; x32 calls itself this one and sets a bit in the number instead.
fn foreign_abi(filter: BpfProgram) -> BpfProgram {
    const X32_BIT: u32 = 0x4000_0000;
    let step = |code: u32, jt: u8, jf: u8, k: u32| sock_filter { code: code as u16, jt, jf, k };
    let mut program = vec![
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        step(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, 0, 1, X32_BIT),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_KILL_PROCESS),
    ];
    program.extend(filter.into_iter().map(|f| sock_filter { code: f.code, jt: f.jt, jf: f.jf, k: f.k }));
    program.into_iter().map(|f| seccompiler::sock_filter { code: f.code, jt: f.jt, jf: f.jf, k: f.k }).collect()
}

fn bytes(program: &BpfProgram) -> Vec<u8> {
    program
        .iter()
        .flat_map(|f| {
            let mut step = [0; 8];
            step[..2].copy_from_slice(&f.code.to_ne_bytes());
            step[2] = f.jt;
            step[3] = f.jf;
            step[4..].copy_from_slice(&f.k.to_ne_bytes());
            step
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_fit_into_what_the_kernel_takes() {
        let filters = filters().unwrap();
        assert_eq!(filters.len(), 3);
        for filter in filters {
            assert_eq!(filter.len() % 8, 0);
            assert!(filter.len() / 8 <= 4096);
        }
    }

    #[test]
    fn nothing_is_denied_twice() {
        let mut all: Vec<_> = DENIED.iter().chain(DENIED_HERE).collect();
        let count = all.len();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), count);
    }
}
