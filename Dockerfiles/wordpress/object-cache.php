<?php
/**
 * Plugin Name: Object cache in Redis
 * Description: Put here by the container's entrypoint while WORDPRESS_REDIS_HOST is set. Without an answer from Redis
 * the cache lasts for one request, as WordPress's own does.
 */

final class WP_Object_Cache
{
    public int $cache_hits = 0;
    public int $cache_misses = 0;
    private array $local = [];
    private array $global_groups = [];
    private array $transient_groups = [];
    private string $blog = '';
    private string $site;
    private ?Redis $redis = null;

    public function __construct(string $server)
    {
        [$host, $port] = explode(':', "$server:6379");
        $this->site = 'wp:' . DB_NAME . ':' . $GLOBALS['table_prefix'];
        $this->switch_to_blog(function_exists('get_current_blog_id') && is_multisite() ? get_current_blog_id() : 0);
        try {
            $redis = new Redis();
            if ($redis->connect($host, (int) $port, 0.2, null, 0, 1.0)) {
                $redis->setOption(Redis::OPT_SERIALIZER, Redis::SERIALIZER_PHP);
                $this->redis = $redis;
            }
        } catch (RedisException) {
            // No cache: the site is slower, not down.
        }
    }

    public function is_persistent(): bool
    {
        return $this->redis !== null;
    }

    public function switch_to_blog(int $id): void
    {
        $this->blog = $id > 0 ? "$id:" : '';
    }

    public function add_groups(array $groups, bool $global): void
    {
        foreach ($groups as $group) {
            if ($global) {
                $this->global_groups[$group] = true;
            } else {
                $this->transient_groups[$group] = true;
            }
        }
    }

    public function get(string|int $key, string $group, bool $force, ?bool &$found): mixed
    {
        $id = $this->id($key, $group);
        if (($force || !array_key_exists($id, $this->local)) && $this->keeps($group)) {
            $value = $this->ask(static fn (Redis $redis) => $redis->get($id));
            // Values are boxed, because a stored false looks like none.
            if (is_array($value)) {
                $this->local[$id] = $value[0];
            } elseif ($force) {
                unset($this->local[$id]);
            }
        }
        $found = array_key_exists($id, $this->local);
        $found ? $this->cache_hits++ : $this->cache_misses++;
        return $found ? (is_object($this->local[$id]) ? clone $this->local[$id] : $this->local[$id]) : false;
    }

    public function set(string|int $key, mixed $value, string $group, int $seconds): bool
    {
        $id = $this->id($key, $group);
        $this->local[$id] = is_object($value) ? clone $value : $value;
        if ($this->keeps($group)) {
            $this->ask(static fn (Redis $redis) => $seconds > 0 ? $redis->setex($id, $seconds, [$value]) : $redis->set($id, [$value]));
        }
        return true;
    }

    public function delete(string|int $key, string $group): bool
    {
        $this->get($key, $group, false, $found);
        $id = $this->id($key, $group);
        unset($this->local[$id]);
        if ($this->keeps($group)) {
            $this->ask(static fn (Redis $redis) => $redis->unlink($id));
        }
        return (bool) $found;
    }

    /** Everything of this site, or of one group of it. */
    public function flush(?string $group = null): bool
    {
        $prefix = $group === null ? "{$this->site}:" : $this->id('', $group);
        $this->local = array_filter($this->local, static fn ($id) => !str_starts_with($id, $prefix), ARRAY_FILTER_USE_KEY);
        $this->ask(static function (Redis $redis) use ($prefix): void {
            $redis->setOption(Redis::OPT_SCAN, Redis::SCAN_RETRY);
            $cursor = null;
            while ($keys = $redis->scan($cursor, addcslashes($prefix, '*?[]\\') . '*', 500)) {
                $redis->unlink($keys);
            }
        });
        return true;
    }

    public function forget_local(): bool
    {
        $this->local = [];
        return true;
    }

    private function id(string|int $key, string $group): string
    {
        $group = $group === '' ? 'default' : $group;
        return "{$this->site}:" . (isset($this->global_groups[$group]) ? '' : $this->blog) . "$group:$key";
    }

    private function keeps(string $group): bool
    {
        return $this->redis !== null && !isset($this->transient_groups[$group]);
    }

    private function ask(callable $question): mixed
    {
        try {
            return $this->redis === null ? null : $question($this->redis);
        } catch (RedisException) {
            $this->redis = null;
            return null;
        }
    }
}

function wp_cache_init(): void
{
    $GLOBALS['wp_object_cache'] = new WP_Object_Cache(WORDPRESS_REDIS_HOST);
}

function wp_cache_supports(string $feature): bool
{
    return in_array($feature, ['add_multiple', 'set_multiple', 'get_multiple', 'delete_multiple', 'flush_runtime', 'flush_group'], true);
}

function wp_cache_get($key, $group = '', $force = false, &$found = null)
{
    return $GLOBALS['wp_object_cache']->get($key, (string) $group, (bool) $force, $found);
}

function wp_cache_set($key, $data, $group = '', $expire = 0)
{
    return $GLOBALS['wp_object_cache']->set($key, $data, (string) $group, (int) $expire);
}

function wp_cache_add($key, $data, $group = '', $expire = 0)
{
    if (wp_suspend_cache_addition()) {
        return false;
    }
    wp_cache_get($key, $group, false, $found);
    return !$found && wp_cache_set($key, $data, $group, $expire);
}

function wp_cache_replace($key, $data, $group = '', $expire = 0)
{
    wp_cache_get($key, $group, false, $found);
    return $found && wp_cache_set($key, $data, $group, $expire);
}

function wp_cache_delete($key, $group = '')
{
    return $GLOBALS['wp_object_cache']->delete($key, (string) $group);
}

function wp_cache_incr($key, $offset = 1, $group = '')
{
    $value = wp_cache_get($key, $group, true, $found);
    if (!$found) {
        return false;
    }
    $value = max(0, (is_numeric($value) ? $value : 0) + (int) $offset);
    wp_cache_set($key, $value, $group);
    return $value;
}

function wp_cache_decr($key, $offset = 1, $group = '')
{
    return wp_cache_incr($key, -(int) $offset, $group);
}

function wp_cache_get_multiple($keys, $group = '', $force = false)
{
    $values = [];
    foreach ($keys as $key) {
        $values[$key] = wp_cache_get($key, $group, $force);
    }
    return $values;
}

function wp_cache_set_multiple(array $data, $group = '', $expire = 0)
{
    $done = [];
    foreach ($data as $key => $value) {
        $done[$key] = wp_cache_set($key, $value, $group, $expire);
    }
    return $done;
}

function wp_cache_add_multiple(array $data, $group = '', $expire = 0)
{
    $done = [];
    foreach ($data as $key => $value) {
        $done[$key] = wp_cache_add($key, $value, $group, $expire);
    }
    return $done;
}

function wp_cache_delete_multiple(array $keys, $group = '')
{
    $done = [];
    foreach ($keys as $key) {
        $done[$key] = wp_cache_delete($key, $group);
    }
    return $done;
}

function wp_cache_flush()
{
    return $GLOBALS['wp_object_cache']->flush();
}

function wp_cache_flush_group($group)
{
    return $GLOBALS['wp_object_cache']->flush((string) $group);
}

function wp_cache_flush_runtime()
{
    return $GLOBALS['wp_object_cache']->forget_local();
}

function wp_cache_close()
{
    return true;
}

function wp_cache_switch_to_blog($blog_id)
{
    $GLOBALS['wp_object_cache']->switch_to_blog((int) $blog_id);
}

function wp_cache_add_global_groups($groups)
{
    $GLOBALS['wp_object_cache']->add_groups((array) $groups, true);
}

function wp_cache_add_non_persistent_groups($groups)
{
    $GLOBALS['wp_object_cache']->add_groups((array) $groups, false);
}
