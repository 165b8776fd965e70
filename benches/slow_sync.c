/* For LD_PRELOAD: each sync of a file takes SYNC_US microseconds longer, and is counted in the file SYNC_COUNT. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static atomic_ulong *count;
static long pause_us;

__attribute__((constructor)) static void begin(void) {
    const char *pause = getenv("SYNC_US"), *path = getenv("SYNC_COUNT");
    pause_us = pause ? atol(pause) : 0;
    int file = path ? open(path, O_RDWR) : -1;
    void *at = file < 0 ? MAP_FAILED : mmap(0, sizeof *count, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    count = at == MAP_FAILED ? 0 : at;
}

static int slow(const char *name, int file) {
    int (*sync_file)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    struct timespec pause = {pause_us / 1000000, pause_us % 1000000 * 1000};
    if (count)
        atomic_fetch_add(count, 1);
    nanosleep(&pause, 0);
    return sync_file(file);
}

int fsync(int file) { return slow("fsync", file); }
int fdatasync(int file) { return slow("fdatasync", file); }
