#!/bin/sh
# Makes the certificate on first use, fills the templates, runs /docker-entrypoint.d/*.sh, becomes the service.
set -eu

export DOMAIN="${DOMAIN:-localhost}"
export FASTCGI_UPSTREAM="${FASTCGI_UPSTREAM:-wordpress:9000}"
export NGINX_MAX_BODY_SIZE="${NGINX_MAX_BODY_SIZE:-64m}"

die() {
    echo "nginx: $*" >&2
    exit 1
}

# A name goes into a configuration file and a certificate: nothing but letters, digits, dots and dashes.
case $DOMAIN in
*[!A-Za-z0-9.-]* | .* | -* | '') die "DOMAIN is not a host name: $DOMAIN" ;;
esac

# What stands in the site's address: nothing for the default port.
case ${HTTPS_PORT:-443} in
443) PORT_SUFFIX= ;;
*[!0-9]*) die "HTTPS_PORT is not a port: $HTTPS_PORT" ;;
*) PORT_SUFFIX=:$HTTPS_PORT ;;
esac
export PORT_SUFFIX

# Keeps a certificate that fits the domain and lives for another day, the user's own too; else makes one.
certificate() {
    crt=/etc/nginx/certificates/site.crt key=/etc/nginx/certificates/site.key
    if [ -s "$crt" ] && [ -s "$key" ]; then
        if ! grep -q 'inception self-signed' "$crt"; then
            return 0
        fi
        if openssl x509 -in "$crt" -noout -checkhost "$DOMAIN" | grep -q 'does match' &&
            openssl x509 -in "$crt" -noout -checkend 86400 >/dev/null; then
            return 0
        fi
    elif [ -e "$crt" ] && [ ! -e "$key" ]; then
        die "$crt is there, but not $key: put the key beside it or remove the certificate"
    fi
    umask 077
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 825 \
        -subj "/CN=$DOMAIN" -addext "subjectAltName=DNS:$DOMAIN" -addext 'extendedKeyUsage=serverAuth' \
        -keyout "$key.new" -out "$crt.new" 2>/dev/null || die "openssl could not make a certificate for $DOMAIN"
    { echo '# inception self-signed'; cat "$crt.new"; } >"$crt.tmp"
    # The key first: a stop in between leaves a pair that does not fit, which the next line's absence gives away.
    rm -f "$crt" "$crt.new"
    mv "$key.new" "$key"
    chmod 0644 "$crt.tmp"
    mv "$crt.tmp" "$crt"
    umask 022
    echo "nginx: made a self-signed certificate for $DOMAIN"
}

# ${NAME} becomes the environment's NAME where it is set; everything else stays as it is written.
fill() {
    awk '{
        line = ""
        while (match($0, /\$\{[A-Za-z_][A-Za-z_0-9]*\}/)) {
            name = substr($0, RSTART + 2, RLENGTH - 3)
            line = line substr($0, 1, RSTART - 1) (name in ENVIRON ? ENVIRON[name] : substr($0, RSTART, RLENGTH))
            $0 = substr($0, RSTART + RLENGTH)
        }
        print line $0
    }'
}

if [ "${1:-}" = nginx ]; then
    certificate
    # IPv6 addresses need brackets in nginx.
    NGINX_LOCAL_RESOLVERS=$(awk '$1 == "nameserver" { print ($2 ~ /:/ ? "[" $2 "]" : $2) }' /etc/resolv.conf | tr '\n' ' ')
    export NGINX_LOCAL_RESOLVERS="${NGINX_LOCAL_RESOLVERS:-127.0.0.11}"
    mkdir -p /etc/nginx/conf.d
    for template in /etc/nginx/templates/*.template; do
        [ -e "$template" ] || continue
        name=${template##*/}
        fill <"$template" >"/etc/nginx/conf.d/${name%.template}"
    done
    for script in /docker-entrypoint.d/*.sh; do
        [ -x "$script" ] || continue
        "$script"
    done
fi

exec "$@"
