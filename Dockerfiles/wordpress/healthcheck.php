#!/usr/bin/php8.2 -n
<?php
// Healthy: php-fpm answers its ping over FastCGI. It listens only when the site is installed.
$record = static fn (int $type, string $body): string => pack('CCnnCx', 1, $type, 1, strlen($body), 0) . $body;
$pair = static fn (string $name, string $value): string => chr(strlen($name)) . chr(strlen($value)) . $name . $value;
$fpm = @stream_socket_client('tcp://127.0.0.1:' . (getenv('PHP_FPM_PORT') ?: '9000'), $code, $message, 3);
if (!$fpm) {
    echo "php-fpm: $message\n";
    exit(1);
}
stream_set_timeout($fpm, 3);
fwrite($fpm, $record(1, pack('nCx5', 1, 0))
    . $record(4, $pair('REQUEST_METHOD', 'GET') . $pair('SCRIPT_NAME', '/ping') . $pair('SCRIPT_FILENAME', '/ping'))
    . $record(4, '') . $record(5, ''));
$answer = stream_get_contents($fpm);
if (!str_contains($answer, 'pong')) {
    echo 'php-fpm did not answer its ping', "\n";
    exit(1);
}
