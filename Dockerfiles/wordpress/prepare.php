<?php
/**
 * Runs before php-fpm, as root: settings from the environment and from secrets go into a file that only the site's user
 * reads; then, as the site's user, the database is waited for and, when it has no site yet, WordPress is installed.
 */
declare(strict_types=1);

const SITE = '/var/www/html';
const RUNTIME = '/run/wordpress';

function stop(string $message): never
{
    fwrite(STDERR, "wordpress: $message\n");
    exit(1);
}

/** The value of NAME, or of the file that NAME_FILE names. */
function setting(string $name, ?string $default = null): ?string
{
    $plain = getenv($name);
    $file = getenv("{$name}_FILE");
    if ($plain !== false && $plain !== '' && $file !== false && $file !== '') {
        stop("both $name and {$name}_FILE are set: give one of them");
    }
    if ($file !== false && $file !== '') {
        $text = @file_get_contents($file);
        if ($text === false) {
            stop("{$name}_FILE: $file can't be read");
        }
        $text = rtrim($text, "\r\n");
        return $text !== '' ? $text : stop("{$name}_FILE: $file is empty");
    }
    return $plain !== false && $plain !== '' ? $plain : $default;
}

/** A file that is there whole or not at all, readable by root and by the site's group. */
function write(string $path, string $text): void
{
    $new = "$path.new";
    @unlink($new);
    umask(0077);
    if (file_put_contents($new, $text) === false || !chgrp($new, 'www-data') || !chmod($new, 0640) || !rename($new, $path)) {
        stop("can't write $path");
    }
    umask(0022);
}

/** What the site reads at each request: made anew at each start, so that changed settings and secrets take effect. */
function settings_file(array $db, ?string $url): string
{
    $constants = [
        'DB_HOST' => $db['host'], 'DB_USER' => $db['user'], 'DB_PASSWORD' => $db['password'], 'DB_NAME' => $db['name'],
        'DB_CHARSET' => 'utf8mb4', 'DB_COLLATE' => '', 'FS_METHOD' => 'direct',
        'WP_DEBUG' => !in_array(strtolower(setting('WORDPRESS_DEBUG', '')), ['', '0', 'false', 'no', 'off'], true),
        'WP_DEBUG_DISPLAY' => false,
    ];
    if (setting('WORDPRESS_REDIS_HOST') !== null) {
        $constants += ['WORDPRESS_REDIS_HOST' => setting('WORDPRESS_REDIS_HOST')];
    }
    if ($url !== null) {
        $constants += ['WP_HOME' => $url, 'WP_SITEURL' => $url];
    }
    $text = "<?php\n// Made at each start by the container's entrypoint from its environment and its secrets.\n";
    foreach ($constants as $name => $value) {
        $text .= "define('$name', " . var_export($value, true) . ");\n";
    }
    $text .= '$table_prefix = ' . var_export(setting('WORDPRESS_TABLE_PREFIX', 'wp_'), true) . ";\n";
    $text .= loopback($url);
    return $text . setting('WORDPRESS_CONFIG_EXTRA', '') . "\n";
}

/**
 * The site calls itself (scheduled tasks, its health page) by its public address, which leads nowhere from in here:
 * these calls go straight to the web server that WORDPRESS_LOOPBACK names (host:port).
 */
function loopback(?string $url): string
{
    $server = setting('WORDPRESS_LOOPBACK');
    if ($server === null || $url === null) {
        return '';
    }
    $host = parse_url($url, PHP_URL_HOST);
    $port = parse_url($url, PHP_URL_PORT) ?? (parse_url($url, PHP_URL_SCHEME) === 'http' ? 80 : 443);
    return '$GLOBALS[\'wp_filter\'][\'http_api_curl\'][10][\'loopback\'] = [\'accepted_args\' => 1, \'function\' =>' . "\n"
        . '    static fn ($handle) => curl_setopt($handle, CURLOPT_CONNECT_TO, ['
        . var_export("$host:$port:$server", true) . "])];\n";
}

/** wp-config.php lives with the site; it holds the salts, which must outlive the container, and no password. */
function config_file(): string
{
    $text = "<?php\n// The settings come from the container's environment, at each start.\nrequire '" . RUNTIME . "/settings.php';\n\n";
    foreach (['AUTH', 'SECURE_AUTH', 'LOGGED_IN', 'NONCE'] as $name) {
        foreach (['KEY', 'SALT'] as $kind) {
            $text .= "define('{$name}_$kind', '" . base64_encode(random_bytes(48)) . "');\n";
        }
    }
    return $text . "\nif (!defined('ABSPATH')) {\n    define('ABSPATH', __DIR__ . '/');\n}\nrequire_once ABSPATH . 'wp-settings.php';\n";
}

/** A connection, after a wait with an end. */
function connect(array $db): mysqli
{
    $wait = (int) setting('WORDPRESS_DB_WAIT', '60');
    $host = $db['host'];
    $port = 3306;
    if (preg_match('/^(.+):(\d+)$/', $host, $parts)) {
        [, $host, $port] = $parts;
    }
    mysqli_report(MYSQLI_REPORT_ERROR | MYSQLI_REPORT_STRICT);
    for ($end = microtime(true) + $wait, $said = false; ; usleep(10_000)) {
        try {
            $connection = mysqli_init();
            $connection->options(MYSQLI_OPT_CONNECT_TIMEOUT, 3);
            @$connection->real_connect($host, $db['user'], $db['password'], $db['name'], (int) $port);
            return $connection;
        } catch (mysqli_sql_exception $error) {
            // A wrong password or data base does not become right by waiting.
            if (in_array($error->getCode(), [1044, 1045, 1049], true)) {
                stop("the database at {$db['host']} refuses user {$db['user']}: {$error->getMessage()}");
            }
            if (microtime(true) > $end) {
                stop("no database at {$db['host']} after $wait s: {$error->getMessage()}");
            }
            if (!$said) {
                echo "wordpress: waiting for the database at {$db['host']}\n";
                $said = true;
            }
        }
    }
}

/** The object cache in Redis is a file in wp-content: there while it is asked for; another one is left alone. */
function object_cache(bool $wanted): void
{
    $ours = file_get_contents('/usr/src/object-cache.php');
    $path = SITE . '/wp-content/object-cache.php';
    $there = @file_get_contents($path);
    if ($wanted && $there === false) {
        write($path, $ours);
    } elseif (!$wanted && $there === $ours) {
        unlink($path);
    }
}

/** The installation is one transaction: its last effect, as all of them, is there or nothing is. */
function is_installed(mysqli $database, string $prefix): bool
{
    try {
        return $database->query("SELECT 1 FROM `{$prefix}options` WHERE option_name = 'siteurl'")->num_rows > 0;
    } catch (mysqli_sql_exception) {
        return false;
    }
}

function become_the_sites_user(): void
{
    $user = posix_getpwnam('www-data') ?: stop('there is no user www-data');
    if (!posix_setgid($user['gid']) || !posix_initgroups('www-data', $user['gid']) || !posix_setuid($user['uid'])) {
        stop("can't become www-data");
    }
}

$db = [
    'host' => setting('WORDPRESS_DB_HOST', 'mariadb'),
    'user' => setting('WORDPRESS_DB_USER', 'wordpress'),
    'password' => setting('WORDPRESS_DB_PASSWORD', ''),
    'name' => setting('WORDPRESS_DB_NAME', 'wordpress'),
];
$prefix = setting('WORDPRESS_TABLE_PREFIX', 'wp_');
if (!preg_match('/^\w+$/', $prefix)) {
    stop("WORDPRESS_TABLE_PREFIX: only letters, digits and _ are allowed, not $prefix");
}
// Browsers leave the default port out of the address: kept in, each page would redirect to itself.
$url = setting('WORDPRESS_URL');
$url = $url === null ? null : preg_replace('~^(https://[^/:]+):443(?=/|$)~', '$1', rtrim($url, '/'));
$admin = setting('WORDPRESS_ADMIN_USER');
$install = $admin === null ? null : [
    'title' => setting('WORDPRESS_TITLE', 'WordPress'),
    'user' => $admin,
    'password' => setting('WORDPRESS_ADMIN_PASSWORD') ?? stop('WORDPRESS_ADMIN_USER is set without WORDPRESS_ADMIN_PASSWORD_FILE'),
    'email' => setting('WORDPRESS_ADMIN_EMAIL', "$admin@localhost.localdomain"),
    'second' => setting('WORDPRESS_USER'),
    'second_password' => setting('WORDPRESS_USER_PASSWORD'),
    'second_email' => setting('WORDPRESS_USER_EMAIL', setting('WORDPRESS_USER', '') . '@localhost.localdomain'),
];
if ($install !== null && $url === null) {
    stop('WORDPRESS_ADMIN_USER is set without WORDPRESS_URL, the address that the site is installed for');
}
if ($install !== null && $install['second'] !== null && $install['second_password'] === null) {
    stop('WORDPRESS_USER is set without WORDPRESS_USER_PASSWORD_FILE');
}

if (!is_dir(RUNTIME)) {
    mkdir(RUNTIME);
}
chmod(RUNTIME, 0755);
write(RUNTIME . '/settings.php', settings_file($db, $url));
if (!file_exists(SITE . '/wp-config.php')) {
    write(SITE . '/wp-config.php', config_file());
}
object_cache(setting('WORDPRESS_REDIS_HOST') !== null);

become_the_sites_user();
$database = connect($db);
if ($install === null || is_installed($database, $prefix)) {
    exit(0);
}
$database->close();

echo "wordpress: installing the site\n";
define('WP_INSTALLING', true);
$_SERVER += ['HTTP_HOST' => parse_url($url, PHP_URL_HOST), 'HTTPS' => 'on', 'SERVER_PROTOCOL' => 'HTTP/1.1',
    'REQUEST_METHOD' => 'GET', 'REQUEST_URI' => '/', 'REMOTE_ADDR' => '127.0.0.1'];
require SITE . '/wp-load.php';
require ABSPATH . 'wp-admin/includes/upgrade.php';

// No mail agent and no web server are there to be asked.
add_filter('pre_wp_mail', '__return_false');
add_filter('pre_http_request', static fn () => new WP_Error('installing', 'no requests during the installation'));
$pretty = static fn () => '/%year%/%monthnum%/%day%/%postname%/';
add_filter('pre_option_permalink_structure', $pretty);

// Tables first, and once: a change of tables would end a transaction.
make_db_current_silent();
add_filter('dbdelta_queries', '__return_empty_array');
$wpdb->query('START TRANSACTION');
// The roles are written once, not with each of their 113 capabilities.
wp_roles()->use_db = false;
wp_install($install['title'], $install['user'], $install['email'], true, '', wp_slash($install['password']));
wp_roles()->use_db = true;
update_option(wp_roles()->role_key, wp_roles()->roles);
remove_filter('pre_option_permalink_structure', $pretty);
update_option('permalink_structure', $pretty());
// Whoever has an account comments, and the comment shows at once; others can't.
update_option('comment_registration', 1);
update_option('comment_previously_approved', 0);
if ($install['second'] !== null) {
    $second = wp_insert_user(wp_slash(['user_login' => $install['second'], 'user_pass' => $install['second_password'],
        'user_email' => $install['second_email'], 'role' => setting('WORDPRESS_USER_ROLE', 'author')]));
    if (is_wp_error($second)) {
        stop("can't add user {$install['second']}: " . $second->get_error_message());
    }
}
flush_rewrite_rules(false);
// The first page would schedule these, run them at once and compete with what they ask the world.
$tasks = ['wp_version_check' => 'twicedaily', 'wp_update_plugins' => 'twicedaily', 'wp_update_themes' => 'twicedaily',
    'wp_https_detection' => 'twicedaily', 'recovery_mode_clean_expired_keys' => 'daily', 'wp_privacy_delete_old_export_files' => 'hourly'];
foreach ($tasks as $task => $interval) {
    wp_schedule_event(time() + MINUTE_IN_SECONDS, $interval, $task);
}
$wpdb->query('COMMIT');
echo "wordpress: installed\n";
