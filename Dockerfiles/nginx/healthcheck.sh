#!/bin/sh
# Healthy: a TLS handshake and an answer from this nginx, whatever the state of the services behind it.
printf 'GET /.healthz HTTP/1.0\r\n\r\n' | openssl s_client -quiet -connect 127.0.0.1:443 2>/dev/null | grep -q '^nginx$'
