#!/bin/sh
# Puts the site's files on an empty volume, prepares settings and database (prepare.php), becomes the service.
set -eu

site=/var/www/html

# version.php goes last: while it is not there the copy is not whole, and is made again.
copy_site() {
    echo "wordpress: copying the site's files to the volume"
    tar -C /usr/src/wordpress --exclude=./wp-includes/version.php -cf - . | tar -C "$site" -xpf -
    sync -f "$site"
    cp -p /usr/src/wordpress/wp-includes/version.php "$site/wp-includes/.version.php.new"
    mv "$site/wp-includes/.version.php.new" "$site/wp-includes/version.php"
}

case ${1:-} in
php-fpm*)
    [ -e "$site/wp-includes/version.php" ] || copy_site
    php8.2 /usr/local/bin/prepare.php
    # Another port than the pool's own 9000, where the environment asks for it.
    if [ -n "${PHP_FPM_PORT:-}" ]; then
        printf '[www]\nlisten = %d\n' "$PHP_FPM_PORT" >/etc/php/8.2/fpm/pool.d/port.conf
    fi
    ;;
esac

exec "$@"
