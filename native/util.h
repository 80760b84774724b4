/* util.h - the few idioms that every file uses
 *
 * Errors: functions return 0 or -errno; a caller checks in the next line. Outputs are named ret_x and
 * written only on success. An fd held in a variable marked MFD_CLOSE is closed when the variable goes
 * out of scope; mfd_take_fd() moves it out. */
#ifndef MESHFD_UTIL_H
#define MESHFD_UTIL_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>
#include <unistd.h>

#define MFD_NS_PER_US 1000ULL
#define MFD_NS_PER_MS 1000000ULL
#define MFD_NS_PER_S 1000000000ULL

#define MFD_COUNT(array) (sizeof(array) / sizeof((array)[0]))

static inline void mfd_close_at(int *fd)
{
    int saved = errno;

    if (*fd >= 0)
        (void)close(*fd);
    *fd = -1;
    errno = saved;
}

#define MFD_CLOSE __attribute__((cleanup(mfd_close_at)))

static inline int mfd_take_fd(int *fd)
{
    int taken = *fd;

    *fd = -1;
    return taken;
}

/* CLOCK_MONOTONIC; a vDSO call, no entry into the kernel */
static inline uint64_t mfd_now_ns(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * MFD_NS_PER_S + (uint64_t)now.tv_nsec;
}

#endif
