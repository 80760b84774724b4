/* standin.c - put a unix socket in the place of a program's TCP socket
 *
 * Theory of operation: a connect() that is redirected to a unix socket cannot be carried out in place: a
 * socket never changes its family. So the agent makes a stream unix socket, connects it, and puts it at every fd
 * number at which the program has the TCP socket, as dup2(2) would; connect() then returns 0. On a
 * non-blocking socket it fails with EINPROGRESS, because that is what a TCP socket does even on loopback, and
 * there are programs that wait for the end of an attempt without having looked whether it was over.
 * What the program sees of the socket is made to look as before:
 *   status flags            O_NONBLOCK and those that fcntl(F_SETFL) takes, but O_ASYNC
 *   close-on-exec           of each number, as it was
 *   options of SOL_SOCKET   carried over (options.c); those of IP and TCP are kept in a record
 *   epoll registrations     parked ones are carried out (parked.c), others looked for and made anew (epoll.c)
 *   addresses, options      answered from the record (standin_calls.c), which is found by SO_COOKIE
 * Reading, writing, shutdown() and the like are the kernel's: after connect() nothing is in between.
 *
 * connect() of a stream unix socket does not wait here: it succeeds, or fails at once, with EAGAIN when the
 * server's queue is full (queue.c). Any failure makes room for the next endpoint. It is made as the
 * program is at that moment (identity.c), which is what the server sees by SO_PEERCRED; but the pid there is
 * the agent's. Paths are the agent's, not those of a program that has changed its root.
 *
 * Looking for dups, and for threads that wait, takes milliseconds where there are thousands. So the call's
 * own number is replaced first, and our duplicate closed: if nobody has the TCP socket then (watch.c), there are
 * none.
 *
 * The program is not told, and cannot be, where it differs: a process that shares the TCP socket since a fork
 * keeps it; so does a message in flight (SCM_RIGHTS). That is noticed WATCH_NS later (watch.c). Nor would a
 * thread wake that waits for the TCP socket in the kernel: it holds that, and so it is looked for (waiters.c) where
 * somebody does; then the number has a TCP socket again, and connect() fails with ECONNREFUSED.
 *
 * Races: each number is looked at right before it is replaced; another thread that closes it, and opens
 * something else there, in the microsecond in between, loses that.
 * Limits: NUMBERS_MAX numbers of one socket; MFD_STANDINS_SETS times _WAYS records, of which the one that was
 * used longest ago gives way: what it stood for then shows as the unix socket that it is.
 * Source: unix(7), seccomp_unotify(2) SECCOMP_ADDFD_FLAG_SETFD, kcmp(2), credentials(7). */
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "kernel.h"
#include "meshfd.h"

#define NUMBERS_MAX 64
#define WATCH_NS (100 * MFD_NS_PER_MS)
#define FLAGS                                                                                      \
    (O_APPEND | O_DIRECT | O_NOATIME | O_NONBLOCK) /* SETFL_MASK of fs/fcntl.c but O_ASYNC */

struct numbers { /* fds of the program that are the socket */
    int fds[NUMBERS_MAX];
    bool cloexec[NUMBERS_MAX];
    unsigned n;
};

/* --- connecting --------------------------------------------------------------------------------------------- */

/* mfd_standin_open - connect to a unix socket, as the program
 * @ret_fd: connected, non-blocking, owned by the caller
 * Return: 0 or -errno: another endpoint may serve. */
int mfd_standin_open(const struct mfd_notification *call, const struct mfd_endpoint *endpoint,
                     int *ret_fd)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    socklen_t length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + endpoint->path_size);
    MFD_CLOSE int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    struct mfd_identity_change identity;
    int error;

    if (fd < 0)
        return -errno;
    memcpy(name.sun_path, endpoint->path, endpoint->path_size);
    if (endpoint->path[0] != '\0')
        length++; /* a path ends in NUL, an abstract name does not */
    error = mfd_identity_enter(call, &identity);
    if (error == 0 && connect(fd, (const struct sockaddr *)&name, length) < 0)
        error = -errno;
    mfd_identity_leave(&identity);
    if (error == 0)
        *ret_fd = mfd_take_fd(&fd);
    return error;
}

/* --- the record ---------------------------------------------------------------------------------------------- */

static struct mfd_standin *set_of(struct mfd_standins *standins, uint64_t cookie)
{
    return standins->records[cookie % MFD_STANDINS_SETS];
}

static struct mfd_standin *new_record(struct mfd_standins *standins, uint64_t cookie)
{
    struct mfd_standin *set = set_of(standins, cookie);
    struct mfd_standin *oldest = &set[0];

    for (unsigned i = 1; i < MFD_STANDINS_WAYS; i++)
        if (set[i].used < oldest->used) /* a free one was never used */
            oldest = &set[i];
    *oldest = (struct mfd_standin){.cookie = cookie, .used = ++standins->clock};
    standins->n_made++;
    return oldest;
}

/* mfd_standin_find - the record of the stand-in that the target has at fd
 * Return: NULL when it is none, or out of reach. */
struct mfd_standin *mfd_standin_find(struct mfd_agent *agent, const struct mfd_notification *call,
                                     int fd)
{
    struct mfd_standin *set;
    MFD_RELEASE int own_fd = -1;
    uint64_t cookie;
    int error;

    if (agent->standins.n_made == 0)
        return NULL;
    error = mfd_target_open_fd(call->pid, fd, &own_fd);
    if (error < 0) {
        if (call->call.kind != MFD_CALL_CONNECT && call->call.kind != MFD_CALL_GETPEERNAME)
            mfd_account_unseen(agent, call, error, NULL); /* those are looked into once more */
        return NULL;
    }
    cookie = mfd_socket_cookie(own_fd);
    set = set_of(&agent->standins, cookie);
    for (unsigned i = 0; cookie != 0 && i < MFD_STANDINS_WAYS; i++) {
        if (set[i].cookie == cookie) {
            set[i].used = ++agent->standins.clock;
            return &set[i];
        }
    }
    return NULL;
}

/* The address that the kernel would give a connection from a socket bound to @bound (wildcard and port 0: to
 * nothing): a datagram socket that is connected there is asked. Where no way leads there, it would be
 * loopback's, of the peer's family. */
static void choose_local(int domain, const struct mfd_address *bound,
                         const struct mfd_address *peer, struct mfd_address *ret_local)
{
    static const struct mfd_address loopback = {
        .family = AF_INET, .port = 1, .bytes = {127, 0, 0, 1}};
    static const struct mfd_address loopback6 = {
        .family = AF_INET6, .port = 1, .bytes = {[15] = 1}};
    MFD_CLOSE int fd = socket(domain, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct mfd_address from = *bound;
    union mfd_sockaddr sockaddr;
    const int off = 0;
    socklen_t length;

    *ret_local = *bound;
    if (fd < 0)
        return;
    from.port = 0;
    if (domain == AF_INET6)
        (void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
    if (!mfd_address_is_wildcard(bound) &&
        (mfd_address_format(&from, domain, &sockaddr, &length) < 0 ||
         bind(fd, &sockaddr.any, length) < 0))
        return;
    if (mfd_address_format(peer, domain, &sockaddr, &length) < 0 ||
        connect(fd, &sockaddr.any, length) < 0) {
        (void)mfd_address_format(peer->family == AF_INET6 ? &loopback6 : &loopback, domain,
                                 &sockaddr, &length);
        if (connect(fd, &sockaddr.any, length) < 0)
            return;
    }
    length = sizeof(sockaddr);
    if (getsockname(fd, &sockaddr.any, &length) < 0 ||
        mfd_address_parse(&sockaddr, length, &from) < 0)
        return;
    if (bound->port != 0)
        from.port = bound->port;
    *ret_local = from;
}

static void fill_record(struct mfd_standin *record, const struct mfd_attempt *attempt, int tcp_fd)
{
    struct mfd_address bound = {.family = attempt->sockaddr.any.sa_family};
    union mfd_sockaddr sockaddr;
    socklen_t length = sizeof(sockaddr);
    int protocol = IPPROTO_TCP;

    (void)mfd_socket_option(tcp_fd, SOL_SOCKET, SO_PROTOCOL, &protocol);
    record->told_cookie = mfd_socket_cookie(tcp_fd);
    record->domain = attempt->sockaddr.any.sa_family;
    record->protocol = (uint16_t)protocol;
    record->peer = attempt->meant;
    if (getsockname(tcp_fd, &sockaddr.any, &length) == 0)
        (void)mfd_address_parse(&sockaddr, length, &bound);
    if (bound.port != 0 && !mfd_address_is_wildcard(&bound))
        record->local = bound;
    else
        choose_local(record->domain, &bound, &record->peer, &record->local);
    mfd_standin_options_read(record, tcp_fd);
}

/* --- replacing ----------------------------------------------------------------------------------------------- */

struct entry { /* of getdents64(2) */
    uint64_t inode;
    int64_t offset;
    uint16_t size;
    uint8_t type;
    char name[];
};

static void add_number(struct numbers *numbers, pid_t pid, int fd)
{
    unsigned long flags = 0;

    if (numbers->n == NUMBERS_MAX || mfd_target_fd_flags(pid, fd, &flags) < 0)
        return;
    numbers->cloexec[numbers->n] = (flags & O_CLOEXEC) != 0;
    numbers->fds[numbers->n++] = fd;
}

/* After what is there already, the program's other fds that are the same open file. */
static void find_others(const struct mfd_notification *call, const struct mfd_watch *watch,
                        struct numbers *numbers)
{
    static _Alignas(struct entry) char room[8192];
    const int own = (int)call->call.args[0];
    MFD_CLOSE int fds = -1;
    char path[32];
    long n;

    (void)snprintf(path, sizeof(path), "/proc/%d/fd", call->pid);
    fds = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    while (fds >= 0 && (n = syscall(SYS_getdents64, fds, room, sizeof(room))) > 0) {
        for (long at = 0; at < n;) {
            const struct entry *entry = (const void *)&room[at];
            int fd = (int)strtol(entry->name, NULL, 10);

            at += entry->size;
            if (entry->name[0] != '.' && fd != own && mfd_watch_is_at(watch, call->pid, fd))
                add_number(numbers, call->pid, fd);
        }
    }
}

static void carry(int from_fd, int to_fd)
{
    (void)fcntl(to_fd, F_SETFL, fcntl(from_fd, F_GETFL) & FLAGS);
    mfd_options_carry_standin(from_fd, to_fd);
}

/* Put fd at these numbers, from @first on. What another thread has put there meanwhile stays: the kernel, too,
 * would connect a file that is there no more.
 * Return: 0; -ENOENT: the target is gone; -errno of the call's own number. */
static int replace(const struct mfd_notification *call, const struct numbers *numbers,
                   unsigned first, const struct mfd_watch *watch, int fd)
{
    for (unsigned i = first; i < numbers->n; i++) {
        int error;

        if (!mfd_watch_is_at(watch, call->pid, numbers->fds[i]))
            continue;
        error = mfd_replace_fd(call, fd, numbers->fds[i], numbers->cloexec[i]);
        if (error < 0 && (i == 0 || error == -ENOENT))
            return error;
    }
    return 0;
}

/* A duplicate of the TCP socket, from another number that has it. Return: 0; -EBADF: none has it any more; -errno. */
static int open_other(const struct mfd_notification *call, const struct numbers *numbers,
                      const struct mfd_watch *watch, int *ret_fd)
{
    MFD_RELEASE int fd = -1;
    int error = numbers->n < 2 ? -EBADF : mfd_target_open_fd(call->pid, numbers->fds[1], &fd);

    if (error == 0 && !mfd_watch_is_at(watch, getpid(), fd))
        error = -EBADF; /* by another thread: closed, and used anew */
    if (error == 0)
        *ret_fd = mfd_take_fd(&fd);
    return error;
}

/* The call's own number gets the TCP socket back that another number has. Where none has, only a thread that waits
 * knows it; then it is a new one that is like it but for being bound. */
static int put_back(struct mfd_agent *agent, const struct mfd_notification *call,
                    const struct numbers *numbers, const struct mfd_watch *watch,
                    const struct mfd_standin *record, int fd)
{
    MFD_RELEASE int tcp_fd = -1;
    int error = open_other(call, numbers, watch, &tcp_fd);
    const bool is_new = error == -EBADF;

    if (is_new)
        error = mfd_standin_open_like(record, &tcp_fd);
    if (error == 0 && is_new)
        carry(fd, tcp_fd);
    if (error == 0)
        error = mfd_replace_fd(call, tcp_fd, numbers->fds[0], numbers->cloexec[0]);
    if (error >= 0 && is_new)
        mfd_parked_replace(agent, record->told_cookie, tcp_fd);
    return error < 0 ? error : 0;
}

/* The call's own number has fd now, and we have let go of the TCP socket: if nobody has it, there is nothing to look
 * for. Else some number may, or a thread that waits for it.
 * Return: 0; -EBUSY: a thread does, and no number has fd; -ENOENT: the target is gone; -errno. */
static int replace_others(struct mfd_agent *agent, const struct mfd_notification *call,
                          struct numbers *numbers, const struct mfd_watch *watch,
                          const struct mfd_standin *record, int fd)
{
    int error;

    if (!mfd_watch_is_open(watch))
        return 0;
    if (numbers->n == 1)
        find_others(call, watch, numbers);
    if (!mfd_waiters_exist(call, numbers->fds, numbers->n))
        return replace(call, numbers, 1, watch, fd);
    error = put_back(agent, call, numbers, watch, record, fd);
    return error < 0 ? error : -EBUSY;
}

/* --- did anybody else have it? ---------------------------------------------------------------------------- */

/* Look later, for one socket at a time: the program's own numbers are gone when its call has returned.
 * @watch: taken over */
static void look_later(struct mfd_agent *agent, const struct mfd_attempt *attempt,
                       struct mfd_watch *watch)
{
    struct mfd_watched *watched = &agent->standins.watched;

    if (watched->due_ns != 0 || ((agent->noticed >> MFD_NOTICE_SHARED) & 1) != 0 ||
        !mfd_watch_is_open(watch)) {
        mfd_watch_close(watch);
        return;
    }
    watched->due_ns = mfd_now_ns() + WATCH_NS;
    watched->watch = *watch;
    watched->pid = attempt->call.pid;
    watched->asked = attempt->asked;
}

/* mfd_standin_expire - is the socket that was watched still somebody's? */
void mfd_standin_expire(struct mfd_agent *agent, uint64_t now_ns)
{
    struct mfd_watched *watched = &agent->standins.watched;

    if (watched->due_ns == 0 || watched->due_ns > now_ns)
        return;
    if (mfd_watch_is_open(&watched->watch))
        mfd_control_notice(agent, MFD_NOTICE_SHARED, watched->pid, 0, &watched->asked, MFD_ANY);
    mfd_watch_close(&watched->watch);
    watched->due_ns = 0;
}

/* mfd_standin_next_ns - when to look; UINT64_MAX: nothing is watched */
uint64_t mfd_standin_next_ns(const struct mfd_standins *standins)
{
    return standins->watched.due_ns == 0 ? UINT64_MAX : standins->watched.due_ns;
}

/* --- replacing, all in all ----------------------------------------------------------------------------------- */

/* The TCP socket stays what it was. */
static int refuse(struct mfd_agent *agent, const struct mfd_attempt *attempt,
                  enum mfd_notice notice, int error)
{
    mfd_parked_settle(agent, attempt->call.pid, (int)attempt->call.call.args[0]);
    mfd_control_notice(agent, notice, attempt->call.pid, error, &attempt->asked, MFD_ANY);
    return -ECONNREFUSED;
}

/* What is told of the stand-in, and the flags and options that it has. */
static const struct mfd_standin *make_alike(struct mfd_agent *agent,
                                            const struct mfd_attempt *attempt, int tcp_fd, int fd,
                                            bool blocking)
{
    struct mfd_standin *record = new_record(&agent->standins, mfd_socket_cookie(fd));

    carry(tcp_fd, fd);
    fill_record(record, attempt, tcp_fd);
    record->untold = !blocking;
    return record;
}

/* Where the program has registered it, which is looked for if it may be anywhere. Return: 0 or -errno. */
static int find_registrations(struct mfd_agent *agent, const struct mfd_notification *call,
                              int tcp_fd, const struct mfd_watch *watch, struct numbers *numbers,
                              struct mfd_registrations **ret_found)
{
    if (!mfd_parked_is_registered(&agent->parked, tcp_fd))
        return 0;
    find_others(call, watch, numbers);
    return mfd_epoll_collect(call->pid, numbers->fds, numbers->n, ret_found);
}

/* Return: 0; -ENOENT: the target is gone; -EBUSY: somebody waits for the socket; -errno. Then all is as before.
 * @tcp_fd: closed before others are looked for */
static int put_in_place(struct mfd_agent *agent, const struct mfd_attempt *attempt, int *tcp_fd,
                        int fd, bool blocking, const struct mfd_watch *watch)
{
    const struct mfd_notification *call = &attempt->call;
    struct mfd_registrations *registrations = NULL;
    const struct mfd_standin *record = NULL;
    struct numbers numbers = {.n = 0};
    int error;

    add_number(&numbers, call->pid, (int)call->call.args[0]);
    if (numbers.n == 0)
        return mfd_notify_is_alive(call) ? -EBADF : -ENOENT;
    error = find_registrations(agent, call, *tcp_fd, watch, &numbers, &registrations);
    if (error == 0 && !mfd_notify_is_alive(call))
        error = -ENOENT;
    if (error == 0) {
        const struct numbers own = {
            .fds = {numbers.fds[0]}, .cloexec = {numbers.cloexec[0]}, .n = 1};

        record = make_alike(agent, attempt, *tcp_fd, fd, blocking);
        error = replace(call, &own, 0, watch, fd);
    }
    mfd_release_at(tcp_fd);
    if (error == 0)
        error = replace_others(agent, call, &numbers, watch, record, fd);
    if (error < 0) {
        (void)mfd_epoll_restore(registrations, -1);
        return error;
    }
    error = mfd_epoll_restore(registrations, fd);
    if (error < 0)
        mfd_control_notice(agent, MFD_NOTICE_PARKED, call->pid, -error, &attempt->asked, MFD_ANY);
    return 0;
}

/* mfd_standin_replace - put a connected unix socket where the program has its TCP socket
 * @tcp_fd, @standin_fd: the agent's duplicates, taken over
 * Return: the answer: 0, -EINPROGRESS; -ECONNREFUSED, and a notice says why; -ENOENT: the target is gone. */
int mfd_standin_replace(struct mfd_agent *agent, const struct mfd_attempt *attempt, int tcp_fd,
                        int standin_fd, bool blocking)
{
    MFD_RELEASE int old_fd = tcp_fd;
    MFD_CLOSE int fd = standin_fd;
    uint64_t parked = mfd_socket_cookie(old_fd);
    struct mfd_watch watch;
    int error = mfd_watch_open(old_fd, &watch);

    if (error < 0)
        return refuse(agent, attempt, MFD_NOTICE_STANDIN, -error);
    error = put_in_place(agent, attempt, &old_fd, fd, blocking, &watch);
    if (error < 0) {
        mfd_watch_close(&watch);
        if (error == -ENOENT)
            return error;
        return error == -EBUSY ? refuse(agent, attempt, MFD_NOTICE_WAITED_FOR, 0)
                               : refuse(agent, attempt, MFD_NOTICE_STANDIN, -error);
    }
    look_later(agent, attempt, &watch);
    mfd_parked_replace(agent, parked, fd);
    agent->stats->standins++;
    return blocking ? 0 : -EINPROGRESS;
}
