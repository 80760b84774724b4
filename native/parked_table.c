/* parked_table.c - the epoll registrations that are parked
 *
 * Theory of operation: a registration is named as the kernel names it: instance, open file, fd number. The
 * socket is known by its SO_COOKIE, and watched (watch.c): when nobody has it any more the kernel drops what it
 * knows of it, and so is it here. Of the instance we hold a duplicate, which nobody can notice: an instance keeps
 * no file open. Instances are kept in the order that kcmp(2) has for files, and found by halving.
 *
 * A socket that is in an instance, because it found no room here or because that was carried out already (its
 * connection failed, say, and it connects anew), is remembered (known.c), so that its registrations are looked for
 * when it is replaced after all (epoll.c).
 *
 * Limits: MFD_PARKED_MAX, MFD_PARKED_INSTANCES_MAX, and one in FDS_PART of the agent's fds, one a socket and one
 * an instance. What is gone makes room every SWEEP_NS, and when there is none.
 * Source: kcmp(2), epoll(7). */
#include <limits.h>
#include <string.h>
#include <sys/resource.h>

#include "meshfd.h"

#define SWEEP_NS (10 * MFD_NS_PER_S)
#define SWEEP_AGAIN_NS                                                                             \
    (100 * MFD_NS_PER_MS) /* not sooner, though there be no room: it takes a millisecond */
#define FDS_PART 4

enum { /* mfd_target_order() */
    SAME,
    AFTER
};

/* --- what is parked -------------------------------------------------------------------------------------- */

/* mfd_parked_open - RLIMIT_NOFILE has been raised. Return: 0 or -errno. */
int mfd_parked_open(struct mfd_parked *parked)
{
    struct rlimit nofile;

    if (getrlimit(RLIMIT_NOFILE, &nofile) < 0)
        return -errno;
    parked->fds_max =
        (unsigned)(nofile.rlim_cur > UINT_MAX ? UINT_MAX : nofile.rlim_cur) / FDS_PART;
    return 0;
}

static void leave_instance(struct mfd_parked *parked, unsigned index)
{
    struct mfd_parked_instance *instance = &parked->instances[index];

    if (--instance->n_users > 0)
        return;
    mfd_close_at(&instance->fd);
    parked->n_fds--;
    parked->n_instances--;
    memmove(instance, instance + 1, (parked->n_instances - index) * sizeof(*instance));
    for (unsigned i = 0; i < MFD_PARKED_MAX; i++)
        if (parked->ones[i].used && parked->ones[i].instance > index)
            parked->ones[i].instance--;
}

static void leave_socket(struct mfd_parked *parked, struct mfd_parked_socket *socket)
{
    if (--socket->n_users > 0)
        return;
    mfd_watch_close(&socket->watch);
    parked->n_fds--;
    socket->cookie = 0;
}

/* mfd_parked_give_up - it is carried out, or is to be no more */
void mfd_parked_give_up(struct mfd_parked *parked, struct mfd_parked_one *one)
{
    one->used = false;
    parked->n--;
    leave_socket(parked, &parked->sockets[one->socket]);
    leave_instance(parked, one->instance);
}

static void sweep(struct mfd_parked *parked, uint64_t now_ns)
{
    static bool is_gone[MFD_PARKED_MAX];

    for (unsigned i = 0; i < MFD_PARKED_MAX; i++)
        is_gone[i] =
            parked->sockets[i].cookie != 0 && !mfd_watch_is_open(&parked->sockets[i].watch);
    for (unsigned i = 0; parked->n > 0 && i < MFD_PARKED_MAX; i++)
        if (parked->ones[i].used && is_gone[parked->ones[i].socket])
            mfd_parked_give_up(parked, &parked->ones[i]);
    parked->swept_ns = now_ns;
    parked->sweep_ns = now_ns + SWEEP_NS;
}

/* mfd_parked_expire - look whether what is parked can still be carried out */
void mfd_parked_expire(struct mfd_parked *parked, uint64_t now_ns)
{
    if (parked->n > 0 && parked->sweep_ns <= now_ns)
        sweep(parked, now_ns);
}

/* mfd_parked_next_ns - when to look; UINT64_MAX: nothing is parked */
uint64_t mfd_parked_next_ns(const struct mfd_parked *parked)
{
    return parked->n == 0 ? UINT64_MAX : parked->sweep_ns;
}

/* Where the target's epoll instance is among those that we hold.
 * @ret_index: also where it would have to be. Return: 0; -ENOENT; -EBADF, -EPERM and the like. */
static int find_instance(const struct mfd_parked *parked, pid_t pid, int epoll_fd,
                         unsigned *ret_index)
{
    unsigned low = 0;
    unsigned high = parked->n_instances;

    while (low < high) {
        unsigned middle = (low + high) / 2;
        int order = mfd_target_order(pid, epoll_fd, parked->instances[middle].fd);

        if (order < 0)
            return order;
        if (order == SAME) {
            *ret_index = middle;
            return 0;
        }
        if (order == AFTER)
            low = middle + 1;
        else
            high = middle;
    }
    *ret_index = low;
    return -ENOENT;
}

/* Looked for by our own duplicate: what is compared is what is kept, whatever the program's other threads do.
 * Return: 0, having one user more; -ENOSPC; -EINVAL: that is no instance; -errno. */
static int join_instance(struct mfd_parked *parked, pid_t pid, int epoll_fd, unsigned *ret_index)
{
    MFD_RELEASE int fd = -1;
    struct mfd_parked_instance *instance;
    unsigned index = 0;
    int error = mfd_target_open_fd(pid, epoll_fd, &fd);

    if (error == 0)
        error = mfd_epoll_has(getpid(), fd, fd); /* any other file would be held open */
    if (error == 0)
        error = find_instance(parked, getpid(), fd, &index);
    if (error < 0 && error != -ENOENT)
        return error;
    instance = &parked->instances[index];
    if (error == -ENOENT) {
        if (parked->n_instances == MFD_PARKED_INSTANCES_MAX || parked->n_fds >= parked->fds_max)
            return -ENOSPC;
        memmove(instance + 1, instance, (parked->n_instances - index) * sizeof(*instance));
        *instance = (struct mfd_parked_instance){.fd = mfd_take_fd(&fd)};
        for (unsigned i = 0; i < MFD_PARKED_MAX; i++)
            if (parked->ones[i].used && parked->ones[i].instance >= index)
                parked->ones[i].instance++;
        parked->n_instances++;
        parked->n_fds++;
    }
    instance->n_users++;
    *ret_index = index;
    return 0;
}

static int find_socket(const struct mfd_parked *parked, uint64_t cookie)
{
    for (unsigned i = 0; i < MFD_PARKED_MAX; i++)
        if (parked->sockets[i].cookie == cookie)
            return (int)i;
    return -ENOENT;
}

/* Return: 0, having one user more; -ENOSPC; -errno. */
static int join_socket(struct mfd_parked *parked, const struct mfd_parked_request *request,
                       unsigned *ret_index)
{
    int index = find_socket(parked, request->cookie);
    struct mfd_parked_socket *socket;
    int error;

    if (index < 0)
        index = find_socket(parked, 0);
    if (index < 0)
        return -ENOSPC;
    socket = &parked->sockets[index];
    if (socket->cookie == 0) {
        if (parked->n_fds >= parked->fds_max)
            return -ENOSPC;
        error = mfd_watch_open(request->own_fd, &socket->watch);
        if (error < 0)
            return error;
        parked->n_fds++;
        socket->cookie = request->cookie;
        socket->pid = request->pid;
        socket->n_users = 0;
    }
    socket->n_users++;
    *ret_index = (unsigned)index;
    return 0;
}

/* mfd_parked_find - what is parked for this socket, under this number, in the target's instance
 * Return: NULL: nothing. */
struct mfd_parked_one *mfd_parked_find(struct mfd_parked *parked, pid_t pid, int epoll_fd, int fd,
                                       uint64_t cookie)
{
    int socket = cookie == 0 ? -ENOENT : find_socket(parked, cookie);
    unsigned instance = 0;

    if (socket < 0 || find_instance(parked, pid, epoll_fd, &instance) < 0)
        return NULL;
    for (unsigned i = 0; i < MFD_PARKED_MAX; i++) {
        struct mfd_parked_one *one = &parked->ones[i];

        if (one->used && one->socket == socket && one->instance == instance && one->fd == fd)
            return one;
    }
    return NULL;
}

/* mfd_parked_has_fd - is anything parked under this number, whosoever? */
bool mfd_parked_has_fd(const struct mfd_parked *parked, int fd)
{
    for (unsigned i = 0; parked->n > 0 && i < MFD_PARKED_MAX; i++)
        if (parked->ones[i].used && parked->ones[i].fd == fd)
            return true;
    return false;
}

static struct mfd_parked_one *find_slot(struct mfd_parked *parked)
{
    for (unsigned i = 0; i < MFD_PARKED_MAX; i++)
        if (!parked->ones[i].used)
            return &parked->ones[i];
    return NULL;
}

/* Return: 0; -ENOSPC and the like: nothing has changed. */
static int put(struct mfd_parked *parked, const struct mfd_parked_request *request)
{
    struct mfd_parked_one *slot = find_slot(parked);
    unsigned socket;
    unsigned instance;
    int error;

    if (slot == NULL)
        return -ENOSPC;
    error = join_socket(parked, request, &socket);
    if (error < 0)
        return error;
    error = join_instance(parked, request->pid, request->epoll_fd, &instance);
    if (error < 0) {
        leave_socket(parked, &parked->sockets[socket]);
        return error;
    }
    if (parked->n++ == 0)
        parked->sweep_ns = request->now_ns + SWEEP_NS;
    *slot = (struct mfd_parked_one){
        .used = true,
        .socket = (uint16_t)socket,
        .instance = (uint16_t)instance,
        .fd = request->fd,
        .event = request->event,
    };
    return 0;
}

/* mfd_parked_put - park it
 * Return: 0; -ENOSPC: no room; -EBADF, -EMFILE and the like. */
int mfd_parked_put(struct mfd_parked *parked, const struct mfd_parked_request *request)
{
    int error = put(parked, request);

    if (error != -ENOSPC || request->now_ns < parked->swept_ns + SWEEP_AGAIN_NS)
        return error;
    sweep(parked, request->now_ns);
    return put(parked, request);
}

/* mfd_parked_due - what is parked for the socket of this cookie
 * @ret_due: valid until it is given up; the instances are not the caller's
 * Return: the pid of who registered it first; 0: nothing. */
pid_t mfd_parked_due(const struct mfd_parked *parked, uint64_t cookie,
                     struct mfd_registrations *ret_due)
{
    int socket = parked->n == 0 || cookie == 0 ? -ENOENT : find_socket(parked, cookie);

    ret_due->n = 0;
    if (socket < 0)
        return 0;
    for (unsigned i = 0; i < MFD_PARKED_MAX; i++) {
        const struct mfd_parked_one *one = &parked->ones[i];

        if (one->used && one->socket == socket)
            ret_due->found[ret_due->n++] =
                (struct mfd_registration){.epoll_fd = parked->instances[one->instance].fd,
                                          .at_fd = one->fd,
                                          .event = one->event};
    }
    return parked->sockets[socket].pid;
}

/* mfd_parked_done - give all of it up */
void mfd_parked_done(struct mfd_parked *parked, uint64_t cookie)
{
    for (unsigned i = 0; i < MFD_PARKED_MAX; i++) {
        struct mfd_parked_one *one = &parked->ones[i];

        if (one->used && parked->sockets[one->socket].cookie == cookie)
            mfd_parked_give_up(parked, one);
    }
}
