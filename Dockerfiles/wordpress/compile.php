<?php
/**
 * Runs while the image is built: compiles the site, at the place where containers have it, into opcache.file_cache. PHP compares
 * the files' times: what an update or a plugin changes is compiled as ever.
 */
declare(strict_types=1);

foreach (new RecursiveIteratorIterator(new RecursiveDirectoryIterator('/var/www/html', FilesystemIterator::SKIP_DOTS)) as $file) {
    // noop.php declares other files' functions once more, for a page that runs without them.
    if ($file->getExtension() === 'php' && $file->getFilename() !== 'noop.php' && !opcache_compile_file($file->getPathname())) {
        exit(1);
    }
}
