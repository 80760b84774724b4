/* stats.c - counters in shared memory
 *
 * The agent writes plain words in a memfd that it alone may write; whoever holds the fd maps it read-only
 * and reads at will. A reader may see one counter a call ahead of another, never a torn word.
 * Source: memfd_create(2). */
#include <fcntl.h>
#include <sys/mman.h>

#include "kernel.h"
#include "meshfd.h"

/* mfd_stats_open - make the page
 * @ret_fd: for readers, owned by the caller
 * Return: 0 or -errno. */
int mfd_stats_open(struct mfd_stats **ret_stats, int *ret_fd)
{
    MFD_CLOSE int fd = memfd_create("meshfd-statistics", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    struct mfd_stats *stats;

    if (fd < 0 || ftruncate(fd, sizeof(*stats)) < 0)
        return -errno;
    stats = mmap(NULL, sizeof(*stats), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (stats == MAP_FAILED)
        return -errno;
    /* our own mapping stays writable; no other can become so (Linux 5.1, else readers are trusted) */
    (void)fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE | F_SEAL_SHRINK | F_SEAL_GROW);
    stats->version = MFD_WIRE_VERSION;
    *ret_stats = stats;
    *ret_fd = mfd_take_fd(&fd);
    return 0;
}

/* mfd_stats_time - count a time in its bucket: 2^b to 2^(b+1)-1 ns */
void mfd_stats_time(uint64_t *histogram, uint64_t nanoseconds)
{
    unsigned bucket = nanoseconds == 0 ? 0 : 63u - (unsigned)__builtin_clzll(nanoseconds);

    histogram[bucket < MFD_STATS_BUCKETS ? bucket : MFD_STATS_BUCKETS - 1]++;
}
