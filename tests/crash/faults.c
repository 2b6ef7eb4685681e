/* Preloaded before the C library: reads and writes that do less than they were asked to, a device that fills up, and
 * allocations that fail. Regular files only; standard streams are left alone. Linux with glibc. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t);

static atomic_long room = -1, countdown = -1, failed = 0;
static size_t shortest = 0, least = 0;

__attribute__((constructor)) static void settings(void) {
    const char *most = getenv("FAULTS_MOST"), *space = getenv("FAULTS_ROOM");
    if (most) shortest = strtoul(most, NULL, 10);
    if (space) room = strtol(space, NULL, 10);
}

/* The allocation number `n` from now on of at least `size` bytes fails, and no other; returns how many have failed. */
long faults_arm(long n, size_t size) {
    least = size;
    countdown = n;
    return atomic_exchange(&failed, 0);
}

static int fails(size_t size) {
    if (size < least || countdown < 0 || atomic_fetch_sub(&countdown, 1) != 0) return 0;
    failed++;
    errno = ENOMEM;
    return 1;
}

void *malloc(size_t size) { return fails(size) ? NULL : __libc_malloc(size); }
void *calloc(size_t n, size_t size) { return fails(n * size) ? NULL : __libc_calloc(n, size); }
void *realloc(void *p, size_t size) { return fails(size) ? NULL : __libc_realloc(p, size); }

static int regular(int fd) {
    struct stat status;
    return fd > 2 && fstat(fd, &status) == 0 && S_ISREG(status.st_mode);
}

static size_t less(int fd, size_t size) { return shortest && size > shortest && regular(fd) ? shortest : size; }

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t read(int fd, void *out, size_t size) { return NEXT(read)(fd, out, less(fd, size)); }
ssize_t pread64(int fd, void *out, size_t size, off64_t at) { return NEXT(pread64)(fd, out, less(fd, size), at); }
ssize_t pread(int fd, void *out, size_t size, off_t at) { return pread64(fd, out, size, at); }

ssize_t write(int fd, const void *data, size_t size) {
    size = less(fd, size);
    if (room >= 0 && regular(fd)) {
        if (room == 0 && size > 0) {
            errno = ENOSPC;
            return -1;
        }
        if ((long)size > room) size = (size_t)room;
        room -= (long)size;
    }
    return NEXT(write)(fd, data, size);
}
