# Packages of Debian and Ubuntu without a right on the machine: what is not installed here is fetched, checked by apt, and
# unpacked into a folder. No maintainer script is run. The names are the arguments.
. /usr/lib/os-release
state="$HOME/apt" root=/opt/packages/apt
mkdir -p "$state/lists/partial" "$state/archives/partial" "$root"
case "$ID" in
debian) mirror=http://deb.debian.org/debian security=http://deb.debian.org/debian-security parts=main ;;
ubuntu)
	mirror=http://archive.ubuntu.com/ubuntu parts='main universe'
	[ "$(uname -m)" = x86_64 ] || mirror=http://ports.ubuntu.com/ubuntu-ports
	security=$mirror
	;;
*)
	echo "ERROR: this machine is ${ID:-unknown}, and apt's packages are known for debian and ubuntu" >&2
	exit 1
	;;
esac
list() { printf 'deb [%s] %s %s %s\n' "$1" "$2" "$3" "$parts"; }
if [ -n "${APT_MIRROR:-}" ]; then
	# Believed as the registries of other managers are.
	list trusted=yes "$APT_MIRROR" "$VERSION_CODENAME"
else
	key="signed-by=/usr/share/keyrings/$ID-archive-keyring.gpg"
	list "$key" "$mirror" "$VERSION_CODENAME"
	list "$key" "$mirror" "$VERSION_CODENAME-updates"
	list "$key" "$security" "$VERSION_CODENAME-security"
fi >"$state/sources"
# An image has its own where dpkg keeps it.
status=/etc/dpkg/status
[ -e "$status" ] || status=/var/lib/dpkg/status
cat >"$state/conf" <<END
Dir::State "$state"; Dir::State::status "$status"; Dir::Cache "$state"; Dir::Log "$state";
Dir::Etc::SourceList "$state/sources"; Dir::Etc::SourceParts "/dev/null"; Dir::Etc::Parts "/dev/null";
Dir::Etc::PreferencesParts "/dev/null"; Dir::Etc::TrustedParts "/dev/null";
APT::Sandbox::User ""; APT::Install-Recommends "false"; Acquire::Languages "none";
END
export APT_CONFIG="$state/conf"
apt-get -qq update
apt-get -qq -y --download-only --no-remove install -- "$@"
for deb in "$state"/archives/*.deb; do
	[ -e "$deb" ] || continue
	case "${deb##*/}" in
	libc6_* | libc-bin_*)
		echo "ERROR: they need another C library than this machine has: ${deb##*/}" >&2
		exit 1
		;;
	esac
	dpkg-deb -x "$deb" "$root"
done
# Links that lead to where the rest of a package would be, were it installed.
find "$root" -type l -lname '/*' | while read -r link; do
	to=$(readlink "$link")
	[ ! -e "$root$to" ] || ln -sfn "$root$to" "$link"
done
