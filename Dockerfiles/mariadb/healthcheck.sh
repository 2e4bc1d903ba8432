#!/bin/sh
# Healthy: the server answers over its socket, InnoDB is up, one of its tables can be read, and the accounts are made.
set -eu
if [ -e /run/mysqld/first-boot ]; then
    echo 'the first boot is not over'
    exit 1
fi
answer=$(mariadb --no-defaults --socket=/run/mysqld/mysqld.sock --user=root --connect-timeout=3 --skip-column-names --batch \
    --execute="SELECT support FROM information_schema.engines WHERE engine = 'InnoDB';
               SELECT 'read', COUNT(*) >= 0 FROM mysql.innodb_table_stats" 2>&1) || { echo "$answer"; exit 1; }
case $answer in
DEFAULT*read* | YES*read*) ;;
*) echo "$answer"; exit 1 ;;
esac
# A server that answers is done with the accounts.
if [ -d /var/lib/mysql/_first_boot ]; then
    echo 'the server refused the accounts of the settings (MARIADB_DATABASE, MARIADB_USER, their passwords): has it rules for passwords?'
    exit 1
fi
