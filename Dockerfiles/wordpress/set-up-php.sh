#!/bin/sh
# Runs while the image is built: sets up the packages that apt has downloaded. PHP's own scripts would ask ucf and phpenmod
# about each of 33 modules: half of the build's time; tzdata's would ask for a zone.
set -eu
export DEBIAN_FRONTEND=noninteractive

# php8.2-redis wants one of the others set up before it is unpacked: --force-depends. The time zones twice over, with leap
# seconds and without, are for nobody.
dpkg --unpack --force-depends --path-exclude='/usr/share/zoneinfo/posix/*' --path-exclude='/usr/share/zoneinfo/right/*' \
    /var/cache/apt/archives/*.deb
cd /var/lib/dpkg/info
rm php*.postinst ca-certificates.postinst tzdata.postinst
dpkg --configure --pending

dpkg-statoverride --update --add root root 01733 /var/lib/php/sessions
cp /usr/lib/php/8.2/php.ini-production /etc/php/8.2/fpm/php.ini
cp /usr/lib/php/8.2/php.ini-production.cli /etc/php/8.2/cli/php.ini
cp /usr/share/php8.2-*/*/*.ini /etc/php/8.2/mods-available
# Here Debian's tools look for what to turn on in a kind of PHP that is added later.
registry=/var/lib/php/modules/8.2/registry
mkdir -p "$registry"
for ini in /etc/php/8.2/mods-available/*.ini; do
    name=${ini##*/}
    priority=$(sed -n 's/^; priority=//p' "$ini")
    ln -s "$ini" "/etc/php/8.2/fpm/conf.d/${priority:-20}-$name"
    ln -s "$ini" "/etc/php/8.2/cli/conf.d/${priority:-20}-$name"
    : >"$registry/${name%.ini}"
done
update-alternatives --quiet --install /usr/bin/php php /usr/bin/php8.2 82
systemd-tmpfiles --create php8.2-fpm.conf
