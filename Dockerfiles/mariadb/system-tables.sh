#!/bin/sh
# Prints the SQL of a server's own tables, as mariadb-install-db would feed it to `mariadbd --bootstrap`; with --settings,
# the settings that decide what their files look like.
set -eu

if [ "${1:-}" = --settings ]; then
    my_print_defaults --mariadbd | grep -i -e innodb -e aria -e lower.case || true
    exit
fi

echo 'CREATE DATABASE IF NOT EXISTS mysql; '
echo 'USE mysql;'
echo 'SET @auth_root_socket=NULL;'
cd /usr/share/mysql
# Without accounts for this container's own host name, which the next container won't have.
cat mysql_system_tables.sql mysql_performance_tables.sql mysql_system_tables_data.sql \
    maria_add_gis_sp_bootstrap.sql mysql_sys_schema.sql | sed '/@current_hostname/d'
echo "DELETE FROM mysql.global_priv WHERE User = '' OR (User = 'root' AND Host <> 'localhost');"
