#!/bin/sh
# Puts the site's files on an empty volume, prepares settings and database (prepare.php), becomes the service.
set -eu

site=/var/www/html

# There while the copy is not whole or not yet on the disk: then it is made again.
copying=$site/wp-includes/.copying

copy_site() {
    echo "wordpress: copying the site's files to the volume"
    mkdir -p "$site/wp-includes"
    : >"$copying"
    tar -C /usr/src/wordpress -cf - . | tar -C "$site" -xpf -
}

# Once the copy is on the disk, it is whole.
settle_copy() {
    if [ -e "$copying" ]; then
        sync -f "$site"
        rm "$copying"
    fi
}

case ${1:-} in
php-fpm*)
    if [ ! -e "$site/wp-includes/version.php" ] || [ -e "$copying" ]; then
        copy_site
    fi
    # Side by side: the disk works while the database is waited for and filled.
    settle_copy | php8.2 /usr/local/bin/prepare.php
    # Another port than the pool's own 9000, where the environment asks for it.
    if [ -n "${PHP_FPM_PORT:-}" ]; then
        printf '[www]\nlisten = %d\n' "$PHP_FPM_PORT" >/etc/php/8.2/fpm/pool.d/port.conf
    fi
    ;;
esac

exec "$@"
