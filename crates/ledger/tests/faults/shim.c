/* Preloaded into a process that writes a ledger: makes the Nth write or sync of its database files go wrong.
 *
 * FAULT_FILES  a part of the paths that count
 * FAULT_AT     which call goes wrong, from 1
 * FAULT_KIND   kill   the process dies before the call
 *              torn   half of a write is done, then the process dies
 *              eio, enospc    this call fails; the next ones do not
 *              eio!, enospc!  this call and all later ones fail
 *              power  the process dies, and PATH.synced is what each file held at its last sync: all that a loss of power leaves
 * FAULT_COUNT  a file that gets the number of calls when the process ends well
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static long calls;

static const char *setting(const char *name) {
    const char *value = getenv(name);
    return value ? value : "";
}

static int path_of(int fd, char *path, size_t size) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, size - 1);
    if (length <= 0) return 0;
    path[length] = 0;
    const char *files = setting("FAULT_FILES");
    return *files && strstr(path, files) && !strstr(path, ".synced") && !strstr(path, "-shm");
}

/* What to do to this call: 0 for nothing, else the kind's first letter. */
static int fault(int fd) {
    char path[4096];
    if (!path_of(fd, path, sizeof path)) return 0;
    long call = __atomic_add_fetch(&calls, 1, __ATOMIC_SEQ_CST), at = atol(setting("FAULT_AT"));
    const char *kind = setting("FAULT_KIND");
    int goes_on = strchr(kind, '!') != NULL;
    return at > 0 && (call == at || (goes_on && call > at)) ? kind[0] : 0;
}

static void die(void) {
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

static int failed(int kind, int fd) {
    (void)fd;
    errno = strncmp(setting("FAULT_KIND"), "eio", 3) == 0 ? EIO : ENOSPC;
    return kind ? -1 : 0;
}

static void keep_synced(int fd) {
    char path[4096], copy[4200], buffer[65536];
    if (strcmp(setting("FAULT_KIND"), "power") || !path_of(fd, path, sizeof path)) return;
    snprintf(copy, sizeof copy, "%s.synced.part", path);
    int from = open(path, O_RDONLY), to = open(copy, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    ssize_t (*real)(int, const void *, size_t) = dlsym(RTLD_NEXT, "write");
    for (ssize_t n; from >= 0 && to >= 0 && (n = read(from, buffer, sizeof buffer)) > 0;)
        if (real(to, buffer, n) != n) die();
    close(to);
    /* Not from: SQLite's locks on the file would go with it. A leak of a test. */
    char done[4200];
    snprintf(done, sizeof done, "%s.synced", path);
    rename(copy, done);
}

ssize_t write(int fd, const void *data, size_t size) {
    ssize_t (*real)(int, const void *, size_t) = dlsym(RTLD_NEXT, "write");
    int kind = fault(fd);
    if (kind == 't') real(fd, data, size / 2);
    if (kind == 't' || kind == 'k' || kind == 'p') die();
    return kind ? failed(kind, fd) : real(fd, data, size);
}

static ssize_t pwrite_with(const char *name, int fd, const void *data, size_t size, off_t at) {
    ssize_t (*real)(int, const void *, size_t, off_t) = dlsym(RTLD_NEXT, name);
    int kind = fault(fd);
    if (kind == 't') real(fd, data, size / 2, at);
    if (kind == 't' || kind == 'k' || kind == 'p') die();
    return kind ? failed(kind, fd) : real(fd, data, size, at);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t at) { return pwrite_with("pwrite", fd, data, size, at); }

ssize_t pwrite64(int fd, const void *data, size_t size, off_t at) { return pwrite_with("pwrite64", fd, data, size, at); }

static int sync_with(const char *name, int fd) {
    int (*real)(int) = dlsym(RTLD_NEXT, name);
    int kind = fault(fd);
    if (kind == 't' || kind == 'k' || kind == 'p') die();
    if (kind) return failed(kind, fd);
    int done = real(fd);
    if (done == 0) keep_synced(fd);
    return done;
}

int fsync(int fd) { return sync_with("fsync", fd); }

int fdatasync(int fd) { return sync_with("fdatasync", fd); }

__attribute__((destructor)) static void tell(void) {
    FILE *file = *setting("FAULT_COUNT") ? fopen(setting("FAULT_COUNT"), "w") : NULL;
    if (!file) return;
    fprintf(file, "%ld", calls);
    fclose(file);
}
