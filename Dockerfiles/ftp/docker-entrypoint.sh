#!/bin/sh
# An account for the site's files, with the password of a secret; a certificate; then the server.
set -eu

die() {
    echo "ftp: $*" >&2
    exit 1
}

user=${FTP_USER:-ftp-user}
case $user in
*[!a-z0-9-]* | -* | '') die "FTP_USER: only small letters, digits and dashes: $user" ;;
esac
file=${FTP_PASSWORD_FILE:-/run/secrets/ftp_password}
[ -s "$file" ] || die "FTP_PASSWORD_FILE: $file can't be read or is empty"

# The same number as the site's own user: what is uploaded belongs to the site.
id "$user" >/dev/null 2>&1 ||
    useradd --non-unique --key UID_MIN=0 --uid 33 --gid 33 --home-dir /var/www/html --no-create-home --shell /bin/sh "$user"
printf '%s:%s\n' "$user" "$(cat "$file")" | chpasswd

mkdir -p /run/vsftpd/empty
umask 077
openssl req -x509 -newkey rsa:2048 -nodes -days 825 -subj "/CN=${DOMAIN:-localhost}" \
    -keyout /run/vsftpd/key.pem -out /run/vsftpd/crt.pem 2>/dev/null || die "openssl could not make a certificate"
cat /run/vsftpd/key.pem /run/vsftpd/crt.pem >/run/vsftpd/ftp.pem
umask 022

# The address that clients are told for their data connections.
exec "$@" "-opasv_address=${FTP_ADDRESS:-127.0.0.1}"
