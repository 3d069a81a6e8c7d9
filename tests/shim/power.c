/*
 * Stands between a program and its files (LD_PRELOAD) and writes down, in order, what it does to
 * those below one folder: tests/tests/it/power rebuilds from that what a power loss would leave.
 *
 *   POWER_ROOT   the folder; must exist
 *   POWER_TRACE  the file that records are appended to; must lie elsewhere
 *   POWER_DROP   which syncs are taken out, neither done nor written down: `all`, `files`, `dirs`
 *                or `dsync` (writes through O_DSYNC descriptors count as plain ones)
 *
 * A record follows what it tells of, and both happen under one lock, so the length of the trace is
 * a moment of the whole program. A sync is not done under the lock: it tells where it began, for
 * it covers no more than what was written by then.
 *
 * What would change a file past these eyes (a shared writable map, fallocate) ends the program.
 * Copies inside the kernel are refused, so that callers fall back to read and write.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { CREATE = 1, MKDIR, WRITE, SIZE, SYNC, RENAME, UNLINK, LINK };
enum { TRACKED = 1, DSYNC = 2, VOLATILE = 4, FOLDER = 8 };

/* All of it little-endian on the machines we run on; names and data follow. */
struct record {
    uint32_t kind, names[2], flags;
    uint64_t a, b, at, bytes;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char root[PATH_MAX];
static size_t root_bytes;
static int trace = -1;
static uint64_t length;
static int drop_files, drop_dirs, drop_dsync;
static unsigned char table[1 << 16];

/* System calls as the C library makes them, without the ones below in between. */
#define SYSTEM(name, ...) syscall(SYS_##name, __VA_ARGS__)

static void fail(const char *what) {
    dprintf(2, "power shim: %s\n", what);
    abort();
}

__attribute__((constructor)) static void begin(void) {
    const char *folder = getenv("POWER_ROOT"), *path = getenv("POWER_TRACE"), *drop = getenv("POWER_DROP");
    if (!folder || !path) return;
    if (!realpath(folder, root)) fail("POWER_ROOT is no folder");
    root_bytes = strlen(root);
    trace = (int)SYSTEM(openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    struct stat found;
    if (trace < 0 || fstat(trace, &found)) fail("POWER_TRACE cannot be opened");
    length = (uint64_t)found.st_size;
    int all = drop && !strcmp(drop, "all");
    drop_files = all || (drop && !strcmp(drop, "files"));
    drop_dirs = all || (drop && !strcmp(drop, "dirs"));
    drop_dsync = all || (drop && !strcmp(drop, "dsync"));
}

static unsigned char *slot(int fd) {
    static unsigned char none;
    if (trace < 0 || fd < 0) return none = 0, &none;
    if (fd >= (int)sizeof table) fail("too many open files");
    return &table[fd];
}

/* Appends one record; the lock is held, unless it is a sync's. */
static void append(struct record head, const char *name, const char *name2, const struct iovec *data, int parts) {
    struct iovec all[IOV_MAX];
    head.names[0] = name ? (uint32_t)strlen(name) : 0;
    head.names[1] = name2 ? (uint32_t)strlen(name2) : 0;
    int n = 0;
    all[n++] = (struct iovec){&head, sizeof head};
    all[n++] = (struct iovec){(void *)name, head.names[0]};
    all[n++] = (struct iovec){(void *)name2, head.names[1]};
    uint64_t left = head.kind == WRITE ? head.bytes : 0;
    for (int i = 0; i < parts && left; i++) {
        if (n == IOV_MAX) fail("a write has too many parts");
        size_t take = data[i].iov_len < left ? data[i].iov_len : (size_t)left;
        all[n++] = (struct iovec){data[i].iov_base, take};
        left -= take;
    }
    uint64_t whole = sizeof head + head.names[0] + head.names[1] + (head.kind == WRITE ? head.bytes : 0);
    if (SYSTEM(writev, trace, all, n) != (long)whole) fail("the trace cannot be written");
    length += whole;
}

/* The folder of a path and its last name, when it lies below the root. */
static int below(int at, const char *path, uint64_t *folder, char *name) {
    char given[PATH_MAX], real[PATH_MAX];
    if (trace < 0) return 0;
    if (path[0] == '/' || at == AT_FDCWD) {
        if (snprintf(given, sizeof given, "%s", path) >= (int)sizeof given) return 0;
    } else if (snprintf(given, sizeof given, "/proc/self/fd/%d/%s", at, path) >= (int)sizeof given) {
        return 0;
    }
    size_t end = strlen(given);
    while (end > 1 && given[end - 1] == '/') given[--end] = 0;
    char *cut = strrchr(given, '/');
    if (snprintf(name, NAME_MAX + 1, "%s", cut ? cut + 1 : given) > NAME_MAX) return 0;
    if (!cut) strcpy(given, ".");
    else if (cut == given) given[1] = 0;
    else *cut = 0;
    struct stat found;
    if (!realpath(given, real) || stat(real, &found)) return 0;
    if (strncmp(real, root, root_bytes) || (real[root_bytes] && real[root_bytes] != '/')) return 0;
    *folder = found.st_ino;
    return 1;
}

static uint64_t inode(int fd, off_t *bytes) {
    struct stat found;
    if (fstat(fd, &found)) fail("a file cannot be looked at");
    if (bytes) *bytes = found.st_size;
    return found.st_ino;
}

static int is_root(int fd) {
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    return n == (ssize_t)root_bytes && !strncmp(path, root, root_bytes);
}

static int opened(int at, const char *path, int flags, mode_t mode) {
    uint64_t folder = 0;
    char name[NAME_MAX + 1];
    struct stat before;
    if (!below(at, path, &folder, name)) {
        int fd = (int)SYSTEM(openat, at, path, flags, mode);
        /* The root itself has its name elsewhere. */
        if (fd >= 0 && trace >= 0 && (flags & O_ACCMODE) == O_RDONLY && is_root(fd)) *slot(fd) = TRACKED | FOLDER;
        return fd;
    }
    if ((flags & O_TMPFILE) == O_TMPFILE) fail("a file without a name");
    pthread_mutex_lock(&lock);
    int was = !fstatat(at, path, &before, AT_SYMLINK_NOFOLLOW);
    int fd = (int)SYSTEM(openat, at, path, flags, mode);
    int error = errno;
    if (fd >= 0) {
        struct stat now;
        if (fstat(fd, &now)) fail("a file cannot be looked at");
        unsigned char kind = TRACKED;
        if (S_ISDIR(now.st_mode)) kind |= FOLDER;
        if ((flags & O_DSYNC) && !drop_dsync) kind |= DSYNC;
        if (!strcmp(name, "lock.mdb")) kind |= VOLATILE;
        *slot(fd) = kind;
        if (!was) append((struct record){.kind = CREATE, .a = folder, .b = now.st_ino}, name, NULL, NULL, 0);
        else if ((flags & O_TRUNC) && before.st_size) append((struct record){.kind = SIZE, .a = now.st_ino}, NULL, NULL, NULL, 0);
    }
    pthread_mutex_unlock(&lock);
    errno = error;
    return fd;
}

#define OPEN(symbol)                                                             \
    int symbol(const char *path, int flags, ...) {                               \
        va_list rest;                                                            \
        va_start(rest, flags);                                                   \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;  \
        va_end(rest);                                                            \
        return opened(AT_FDCWD, path, flags, mode);                              \
    }
#define OPENAT(symbol)                                                           \
    int symbol(int at, const char *path, int flags, ...) {                       \
        va_list rest;                                                            \
        va_start(rest, flags);                                                   \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;  \
        va_end(rest);                                                            \
        return opened(at, path, flags, mode);                                    \
    }
OPEN(open) OPEN(open64) OPENAT(openat) OPENAT(openat64)
int creat(const char *path, mode_t mode) { return opened(AT_FDCWD, path, O_WRONLY | O_CREAT | O_TRUNC, mode); }
int creat64(const char *path, mode_t mode) { return creat(path, mode); }

/* A write of any shape; `at` is -1 for one at the descriptor's own place. */
static ssize_t written(int fd, const struct iovec *parts, int count, off_t at) {
    unsigned char kind = *slot(fd);
    int recorded = (kind & TRACKED) && !(kind & VOLATILE);
    if (recorded) pthread_mutex_lock(&lock);
    ssize_t n;
    if (count == 1) n = at < 0 ? SYSTEM(write, fd, parts->iov_base, parts->iov_len) : SYSTEM(pwrite64, fd, parts->iov_base, parts->iov_len, at);
    else n = at < 0 ? SYSTEM(writev, fd, parts, count) : SYSTEM(pwritev, fd, parts, count, at, 0);
    if (!recorded) return n;
    int error = errno;
    if (n > 0) {
        off_t from = at < 0 ? lseek(fd, 0, SEEK_CUR) - n : at;
        append((struct record){.kind = WRITE, .flags = !!(kind & DSYNC), .a = inode(fd, NULL), .at = (uint64_t)from, .bytes = (uint64_t)n}, NULL, NULL, parts, count);
    }
    pthread_mutex_unlock(&lock);
    errno = error;
    return n;
}

ssize_t write(int fd, const void *data, size_t bytes) { return written(fd, &(struct iovec){(void *)data, bytes}, 1, -1); }
ssize_t writev(int fd, const struct iovec *parts, int count) { return written(fd, parts, count, -1); }
ssize_t pwrite(int fd, const void *data, size_t bytes, off_t at) { return written(fd, &(struct iovec){(void *)data, bytes}, 1, at); }
ssize_t pwrite64(int fd, const void *data, size_t bytes, off_t at) { return pwrite(fd, data, bytes, at); }
ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t at) { return written(fd, parts, count, at); }
ssize_t pwritev64(int fd, const struct iovec *parts, int count, off_t at) { return written(fd, parts, count, at); }

int ftruncate(int fd, off_t bytes) {
    if (!(*slot(fd) & TRACKED)) return (int)SYSTEM(ftruncate, fd, bytes);
    pthread_mutex_lock(&lock);
    int result = (int)SYSTEM(ftruncate, fd, bytes), error = errno;
    if (!result) append((struct record){.kind = SIZE, .a = inode(fd, NULL), .at = (uint64_t)bytes}, NULL, NULL, NULL, 0);
    pthread_mutex_unlock(&lock);
    errno = error;
    return result;
}
int ftruncate64(int fd, off_t bytes) { return ftruncate(fd, bytes); }

static int synced(int fd, int data_only) {
    unsigned char kind = *slot(fd);
    if (!(kind & TRACKED)) return data_only ? (int)SYSTEM(fdatasync, fd) : (int)SYSTEM(fsync, fd);
    if (kind & FOLDER ? drop_dirs : drop_files) return 0;
    pthread_mutex_lock(&lock);
    uint64_t from = length;
    pthread_mutex_unlock(&lock);
    int result = data_only ? (int)SYSTEM(fdatasync, fd) : (int)SYSTEM(fsync, fd), error = errno;
    if (!result) {
        pthread_mutex_lock(&lock);
        append((struct record){.kind = SYNC, .a = inode(fd, NULL), .at = from}, NULL, NULL, NULL, 0);
        pthread_mutex_unlock(&lock);
    }
    errno = error;
    return result;
}
int fsync(int fd) { return synced(fd, 0); }
int fdatasync(int fd) { return synced(fd, 1); }

int renameat2(int from_at, const char *from, int to_at, const char *to, unsigned flags) {
    uint64_t old = 0, new = 0;
    char old_name[NAME_MAX + 1], new_name[NAME_MAX + 1];
    int leaves = below(from_at, from, &old, old_name), enters = below(to_at, to, &new, new_name);
    if (leaves != enters) fail("a rename over the edge of the folder");
    if (leaves && (flags & ~(unsigned)RENAME_NOREPLACE)) fail("an exchange of names");
    if (leaves) pthread_mutex_lock(&lock);
    int result = (int)SYSTEM(renameat2, from_at, from, to_at, to, flags), error = errno;
    if (leaves) {
        if (!result) append((struct record){.kind = RENAME, .a = old, .b = new}, old_name, new_name, NULL, 0);
        pthread_mutex_unlock(&lock);
    }
    errno = error;
    return result;
}
int rename(const char *from, const char *to) { return renameat2(AT_FDCWD, from, AT_FDCWD, to, 0); }
int renameat(int from_at, const char *from, int to_at, const char *to) { return renameat2(from_at, from, to_at, to, 0); }

int unlinkat(int at, const char *path, int flags) {
    uint64_t folder = 0;
    char name[NAME_MAX + 1];
    if (!below(at, path, &folder, name)) return (int)SYSTEM(unlinkat, at, path, flags);
    pthread_mutex_lock(&lock);
    int result = (int)SYSTEM(unlinkat, at, path, flags), error = errno;
    if (!result) append((struct record){.kind = UNLINK, .a = folder}, name, NULL, NULL, 0);
    pthread_mutex_unlock(&lock);
    errno = error;
    return result;
}
int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }
int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }

int mkdirat(int at, const char *path, mode_t mode) {
    uint64_t folder = 0;
    char name[NAME_MAX + 1];
    if (!below(at, path, &folder, name)) return (int)SYSTEM(mkdirat, at, path, mode);
    pthread_mutex_lock(&lock);
    int result = (int)SYSTEM(mkdirat, at, path, mode), error = errno;
    struct stat made;
    if (!result) {
        if (fstatat(at, path, &made, 0)) fail("a new folder cannot be looked at");
        append((struct record){.kind = MKDIR, .a = folder, .b = made.st_ino}, name, NULL, NULL, 0);
    }
    pthread_mutex_unlock(&lock);
    errno = error;
    return result;
}
int mkdir(const char *path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }

int linkat(int from_at, const char *from, int to_at, const char *to, int flags) {
    uint64_t folder = 0;
    char name[NAME_MAX + 1];
    if (!below(to_at, to, &folder, name)) return (int)SYSTEM(linkat, from_at, from, to_at, to, flags);
    pthread_mutex_lock(&lock);
    int result = (int)SYSTEM(linkat, from_at, from, to_at, to, flags), error = errno;
    struct stat made;
    if (!result) {
        if (fstatat(to_at, to, &made, AT_SYMLINK_NOFOLLOW)) fail("a new name cannot be looked at");
        append((struct record){.kind = LINK, .a = folder, .b = made.st_ino}, name, NULL, NULL, 0);
    }
    pthread_mutex_unlock(&lock);
    errno = error;
    return result;
}
int link(const char *from, const char *to) { return linkat(AT_FDCWD, from, AT_FDCWD, to, 0); }

int close(int fd) {
    *slot(fd) = 0;
    return (int)SYSTEM(close, fd);
}
/* The C library closes the descriptor of a listing by a door of its own. */
int closedir(DIR *listing) {
    static int (*next)(DIR *);
    if (!next) *(void **)&next = dlsym(RTLD_NEXT, "closedir");
    if (!next) fail("no closedir");
    *slot(dirfd(listing)) = 0;
    return next(listing);
}
static int copied(int from, int to) {
    if (to >= 0 && from >= 0) *slot(to) = *slot(from);
    return to;
}
int dup(int fd) { return copied(fd, (int)SYSTEM(dup, fd)); }
int dup2(int fd, int to) { return copied(fd, fd == to ? fd : (int)SYSTEM(dup3, fd, to, 0)); }
int dup3(int fd, int to, int flags) { return copied(fd, (int)SYSTEM(dup3, fd, to, flags)); }
int fcntl(int fd, int command, ...) {
    va_list rest;
    va_start(rest, command);
    void *value = va_arg(rest, void *);
    va_end(rest);
    int result = (int)SYSTEM(fcntl, fd, command, value);
    return command == F_DUPFD || command == F_DUPFD_CLOEXEC ? copied(fd, result) : result;
}
int fcntl64(int fd, int command, ...) {
    va_list rest;
    va_start(rest, command);
    void *value = va_arg(rest, void *);
    va_end(rest);
    return fcntl(fd, command, value);
}

void *mmap(void *place, size_t bytes, int protection, int flags, int fd, off_t at) {
    unsigned char kind = fd >= 0 ? *slot(fd) : 0;
    if ((kind & TRACKED) && !(kind & VOLATILE) && (flags & MAP_SHARED) && (protection & PROT_WRITE)) fail("a shared map that can be written to");
    return (void *)SYSTEM(mmap, place, bytes, protection, flags, fd, at);
}
void *mmap64(void *place, size_t bytes, int protection, int flags, int fd, off_t at) { return mmap(place, bytes, protection, flags, fd, at); }

int fallocate(int fd, int mode, off_t at, off_t bytes) {
    if (*slot(fd) & TRACKED) fail("fallocate");
    return (int)SYSTEM(fallocate, fd, mode, at, bytes);
}
int fallocate64(int fd, int mode, off_t at, off_t bytes) { return fallocate(fd, mode, at, bytes); }
int posix_fallocate(int fd, off_t at, off_t bytes) {
    if (*slot(fd) & TRACKED) fail("posix_fallocate");
    return SYSTEM(fallocate, fd, 0, at, bytes) ? errno : 0;
}
int posix_fallocate64(int fd, off_t at, off_t bytes) { return posix_fallocate(fd, at, bytes); }

ssize_t copy_file_range(int from, off_t *from_at, int to, off_t *to_at, size_t bytes, unsigned flags) {
    if (!(*slot(to) & TRACKED)) return SYSTEM(copy_file_range, from, from_at, to, to_at, bytes, flags);
    errno = EXDEV;
    return -1;
}
ssize_t sendfile(int to, int from, off_t *at, size_t bytes) {
    if (!(*slot(to) & TRACKED)) return SYSTEM(sendfile, to, from, at, bytes);
    errno = EINVAL;
    return -1;
}
ssize_t sendfile64(int to, int from, off_t *at, size_t bytes) { return sendfile(to, from, at, bytes); }
