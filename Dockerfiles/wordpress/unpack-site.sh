#!/bin/sh
# Runs while the image is built: takes WordPress out of its package, and what it links to out of the others.
set -eu

cd /tmp/packages
for package in *.deb; do dpkg-deb --extract "$package" .; done
cd usr/share/wordpress
rm wp-config.php .htaccess
# What is left is the link to the system's certificates.
find . -type l ! -lname '/*' | while read -r link; do
    cp --dereference --preserve=timestamps "$link" "$link.file"
    mv "$link.file" "$link"
done
chown -Rh www-data:www-data .
mkdir -p /var/www
mv /tmp/packages/usr/share/wordpress /var/www/html
rm -r /tmp/packages
