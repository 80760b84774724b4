/* leases.c - duplicates held for a short while after socket()
 *
 * Theory of operation: the agent that made a socket for a program keeps its own duplicate, because
 * the program's next call is most often the connect() that needs it. But a duplicate can be noticed:
 * the program's close() would send no FIN, its port would stay taken, an epoll instance would go on
 * reporting it. So a duplicate is given up when the socket settles (connect, bind, listen), or after
 * LEASE_NS, whichever is first. Giving up early is always safe: a later call re-opens the file from
 * the program (pidfd_getfd).
 *
 * All leases last equally long, so a ring in order of creation is in order of expiry. Leases given up
 * in the middle leave holes that the ends of the ring pass over.
 *
 * A lease is found by the fd number that the file got, and then verified: thread and number are
 * hints, the file is what counts (kcmp; SO_COOKIE when the number has changed since).
 * Limits: LEASE_NS; MFD_LEASES_MAX, the oldest is given up first.
 * Source: socket(7) SO_COOKIE, kcmp(2). */
#include "meshfd.h"

#define LEASE_NS (100 * MFD_NS_PER_MS) /* long after a usual connect(), short for a usual close() */

static struct mfd_lease *nth(struct mfd_leases *leases, unsigned n)
{
    return &leases->ring[(leases->first + n) % MFD_LEASES_MAX];
}

static void trim(struct mfd_leases *leases)
{
    while (leases->n > 0 && nth(leases, leases->n - 1)->own_fd < 0)
        leases->n--;
    while (leases->n > 0 && nth(leases, 0)->own_fd < 0) {
        leases->first = (leases->first + 1) % MFD_LEASES_MAX;
        leases->n--;
    }
}

static int give_up(struct mfd_leases *leases, struct mfd_lease *lease)
{
    leases->n_held--;
    return mfd_take_fd(&lease->own_fd);
}

/* It may be connected by now, by a call that is not intercepted. */
static void drop(struct mfd_leases *leases, struct mfd_lease *lease)
{
    int fd = give_up(leases, lease);

    mfd_release_at(&fd);
}

/* mfd_leases_put - hold a duplicate; takes own_fd over
 * @fd: its number in the target */
void mfd_leases_put(struct mfd_leases *leases, int own_fd, int domain, int fd, uint64_t now_ns)
{
    if (leases->n == MFD_LEASES_MAX) {
        drop(leases, nth(leases, 0));
        trim(leases);
    }
    *nth(leases, leases->n++) = (struct mfd_lease){
        .expires_ns = now_ns + LEASE_NS,
        .own_fd = own_fd,
        .fd = fd,
        .domain = domain,
    };
    leases->n_held++;
}

/* mfd_leases_take - give up the lease on the file that the target has at fd
 * @ret_fd: the duplicate, owned by the caller
 * Return: 0; -ENOENT when none is known under that number (the file may be leased all the same, under
 * another: see mfd_leases_release_same). */
int mfd_leases_take(struct mfd_leases *leases, pid_t pid, int fd, int *ret_fd, int *ret_domain)
{
    for (unsigned i = leases->n; i-- > 0;) {
        struct mfd_lease *lease = nth(leases, i);

        if (lease->own_fd < 0 || lease->fd != fd ||
            mfd_target_same_file(pid, fd, lease->own_fd) != 1)
            continue;
        *ret_domain = lease->domain;
        *ret_fd = give_up(leases, lease);
        trim(leases);
        return 0;
    }
    return -ENOENT;
}

/* mfd_leases_release_same - give up the lease on the file that own_fd is, too
 * Return: whether there was one. */
bool mfd_leases_release_same(struct mfd_leases *leases, int own_fd)
{
    uint64_t cookie = leases->n_held == 0 ? 0 : mfd_socket_cookie(own_fd);

    if (cookie == 0)
        return false;
    for (unsigned i = 0; i < leases->n; i++) {
        struct mfd_lease *lease = nth(leases, i);

        if (lease->own_fd < 0)
            continue;
        if (lease->cookie == 0)
            lease->cookie = mfd_socket_cookie(lease->own_fd);
        if (lease->cookie != cookie)
            continue;
        drop(leases, lease);
        trim(leases);
        return true;
    }
    return false;
}

/* mfd_leases_expire - give up what is due */
void mfd_leases_expire(struct mfd_leases *leases, uint64_t now_ns)
{
    while (leases->n > 0 && nth(leases, 0)->expires_ns <= now_ns) {
        drop(leases, nth(leases, 0));
        trim(leases);
    }
}

/* mfd_leases_next_ns - when the next one is due; UINT64_MAX: none is held */
uint64_t mfd_leases_next_ns(const struct mfd_leases *leases)
{
    return leases->n == 0 ? UINT64_MAX : leases->ring[leases->first].expires_ns;
}

/* mfd_leases_drop_all - give all up at once, when fds run out */
void mfd_leases_drop_all(struct mfd_leases *leases)
{
    mfd_leases_expire(leases, UINT64_MAX);
}
