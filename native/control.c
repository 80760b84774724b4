/* control.c - the supervisor's requests, the agent's reports
 *
 * Theory of operation: requests are carried out in the order in which they come, each answered by one
 * DONE. The agent never waits for the channel: what finds it full is, by kind,
 *   DONE               kept, and no further request is read until it is sent
 *   EXITED             left in the kernel as an unreaped child (children.c)
 *   STOPPED            kept, the last
 *   bound reports      kept, the last of each kind per listening socket
 *   EMPTY              kept as a flag
 *   DECIDED, NOTICE    dropped and counted
 *   CALL               not asked: the call gets its default
 * and sent when poll says there is room again. Everything kept has a fixed place.
 * A packet of another version is answered EPROTONOSUPPORT with our version in DONE.value.
 * Source: unix(7) SOCK_SEQPACKET. */
#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "meshfd.h"

#define MAKES_SOCKETS (MFD_SETUP_CREATE | MFD_SETUP_ELSEWHERE | MFD_SETUP_IPV4)

union request {
    struct mfd_header header;
    struct mfd_setup setup;
    struct mfd_netns_msg netns;
    struct mfd_listen listen;
    struct mfd_unlisten unlisten;
    struct mfd_spawn spawn;
    struct mfd_signal signal;
    struct mfd_verdict_msg verdict;
};

struct received {
    union request request;
    int fds[MFD_CHANNEL_FDS];
    size_t n_fds;
};

/* --- sending ------------------------------------------------------------------------------------------ */

static int send_packet(const struct mfd_agent *agent, const void *data, size_t size, int fd)
{
    return mfd_rights_send(agent->control.fd, data, size, &fd, fd >= 0, MSG_DONTWAIT);
}

/* mfd_control_report - send a report, now or not at all
 * @message: opens with struct mfd_header, which is filled in here
 * Return: 0; -EAGAIN when the channel is full; -EPIPE when nobody is there. */
int mfd_control_report(struct mfd_agent *agent, void *message, uint16_t type, size_t size)
{
    *(struct mfd_header *)message = (struct mfd_header){
        .version = MFD_WIRE_VERSION,
        .type = type,
        .size = (uint32_t)size,
    };
    return send_packet(agent, message, size, -1);
}

/* mfd_control_bound - report something about a listening socket; never lost
 * @index: MFD_ANY for a socket of the program's own */
void mfd_control_bound(struct mfd_agent *agent, uint16_t type, pid_t pid, uint32_t index,
                       const struct mfd_address *address)
{
    struct mfd_bound message = {.pid = (uint32_t)pid, .index = index, .address = *address};
    unsigned slot = index == MFD_ANY ? MFD_LISTEN_MAX : index;

    if (mfd_control_report(agent, &message, type, sizeof(message)) != -EAGAIN)
        return;
    agent->control.bound[slot].unsent[type - MFD_MSG_LISTENING] = message;
    agent->control.full = true;
}

/* mfd_control_stopped - report that a program was stopped; never lost, but for one that a later stop
 * has overtaken
 * @status: as waitpid(2) gives it */
void mfd_control_stopped(struct mfd_agent *agent, pid_t pid, uint32_t status)
{
    struct mfd_exited message = {.pid = (uint32_t)pid, .status = status};

    if (mfd_control_report(agent, &message, MFD_MSG_STOPPED, sizeof(message)) != -EAGAIN)
        return;
    agent->control.stopped = message;
    agent->control.full = true;
}

/* mfd_control_notice - report what deserves a line in the log; each kind once a spawn, so that a
 * program cannot flood the log */
void mfd_control_notice(struct mfd_agent *agent, enum mfd_notice notice, pid_t pid, int error,
                        const struct mfd_address *address, uint32_t index)
{
    struct mfd_notice_msg message = {
        .notice = (uint32_t)notice,
        .pid = (uint32_t)pid,
        .error = (uint32_t)error,
        .index = index,
    };

    if ((agent->noticed >> notice) & 1)
        return;
    if (address != NULL)
        message.address = *address;
    if (mfd_control_report(agent, &message, MFD_MSG_NOTICE, sizeof(message)) < 0)
        agent->stats->events_lost++;
    else
        agent->noticed |= 1ULL << notice;
}

static void send_done(struct mfd_agent *agent, const struct mfd_done *done, int fd)
{
    if (send_packet(agent, done, sizeof(*done), fd) != -EAGAIN)
        return;
    agent->control.done = *done;
    agent->control.full = true;
}

static int flush_reports(struct mfd_agent *agent)
{
    struct mfd_exited *stopped = &agent->control.stopped;

    if (stopped->header.type != 0) {
        if (send_packet(agent, stopped, sizeof(*stopped), -1) == -EAGAIN)
            return -EAGAIN;
        stopped->header.type = 0;
    }
    for (unsigned i = 0; i < MFD_COUNT(agent->control.bound); i++) {
        for (unsigned kind = 0; kind < MFD_BOUND_KINDS; kind++) {
            struct mfd_bound *message = &agent->control.bound[i].unsent[kind];

            if (message->header.type == 0)
                continue;
            if (send_packet(agent, message, sizeof(*message), -1) == -EAGAIN)
                return -EAGAIN;
            message->header.type = 0;
        }
    }
    return 0;
}

/* mfd_control_flush - there may be room again */
void mfd_control_flush(struct mfd_agent *agent)
{
    struct mfd_done *done = &agent->control.done;

    if (done->header.type != 0) {
        if (send_packet(agent, done, sizeof(*done), -1) == -EAGAIN)
            return;
        done->header.type = 0;
    }
    if (flush_reports(agent) < 0)
        return;
    agent->control.full = false;
    mfd_children_reap(agent);
}

/* --- requests ------------------------------------------------------------------------------------------ */

/* Sockets are made under this identity from now on: a socket belongs to its creator's fsuid
 * (net/socket.c, sock_alloc). It decides nothing else that the agent does. */
static void take_fs_identity(uint32_t uid, uint32_t gid)
{
    (void)setfsgid(gid == MFD_ANY ? getegid() : gid);
    (void)setfsuid(uid == MFD_ANY ? geteuid() : uid);
    /* fs.suid_dumpable may say otherwise of who changes */
    (void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
}

static int do_setup(struct mfd_agent *agent, const struct received *received)
{
    const struct mfd_setup *setup = &received->request.setup;
    int error = 0;

    if ((setup->flags & MFD_SETUP_NETNS) != 0 && received->n_fds != 1)
        return -EBADMSG;
    agent->flags = setup->flags;
    agent->ask_timeout_ms = setup->ask_timeout_ms;
    agent->stop_signal = setup->stop_signal;
    agent->stop_timeout_ms = setup->stop_timeout_ms;
    if ((setup->flags & MAKES_SOCKETS) != 0) /* only who does so for programs asks for it */
        mfd_cgroup_learn(&agent->cgroup);
    if ((setup->flags & (MFD_SETUP_NETNS | MFD_SETUP_NEW_NETNS)) != 0)
        error = mfd_netns_enter(&agent->netns,
                                (setup->flags & MFD_SETUP_NETNS) != 0 ? received->fds[0] : -1);
    take_fs_identity(setup->uid, setup->gid);
    return error;
}

static int do_netns(struct mfd_agent *agent, const struct received *received)
{
    uint32_t index = received->request.netns.index;
    int error;

    if (received->n_fds != 1)
        return -EBADMSG;
    error = mfd_netns_add(&agent->netns, index, received->fds[0]);
    if (error == 0 && index == MFD_NETNS_IPV4 && !mfd_netns_has_ipv4(&agent->netns, index))
        error = -EADDRNOTAVAIL;
    return error;
}

/* The counters beside a table: a memfd of the supervisor's, one word a rule and one an endpoint. Optional. */
static int map_tally(const struct mfd_table *table, int fd, uint64_t **ret_tally, size_t *ret_size)
{
    size_t size = ((size_t)table->n_rules + table->n_endpoints) * sizeof(uint64_t);
    struct stat status;
    void *mapped;
    int seals = fcntl(fd, F_GET_SEALS);

    if (size == 0)
        return 0;
    if (fstat(fd, &status) < 0)
        return -errno;
    if ((size_t)status.st_size < size || seals < 0 || (seals & F_SEAL_SHRINK) == 0)
        return -EBADMSG;
    mapped = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (mapped == MAP_FAILED)
        return -errno;
    *ret_tally = mapped;
    *ret_size = size;
    return 0;
}

static int do_routes(struct mfd_agent *agent, const struct received *received)
{
    const struct mfd_table *table;
    uint64_t *tally = NULL;
    size_t tally_size = 0;
    uint32_t *cursors;
    int error;

    if (received->n_fds < 1 || received->n_fds > 2)
        return -EBADMSG;
    error = mfd_routes_map(received->fds[0], &table);
    if (error < 0)
        return error;
    if (received->n_fds == 2)
        error = map_tally(table, received->fds[1], &tally, &tally_size);
    cursors = error < 0 ? NULL : calloc((size_t)table->n_upstreams + 1, sizeof(*cursors));
    if (cursors == NULL) {
        mfd_routes_unmap(table);
        if (tally != NULL)
            (void)munmap(tally, tally_size);
        return error < 0 ? error : -ENOMEM;
    }
    mfd_asks_forget_rules(&agent->asks);
    mfd_queue_forget_rules(&agent->queue);
    mfd_routes_unmap(agent->table);
    if (agent->tally != NULL)
        (void)munmap(agent->tally, agent->tally_size);
    free(agent->cursors);
    agent->table = table;
    agent->tally = tally;
    agent->tally_size = tally_size;
    agent->cursors = cursors;
    mfd_names_repin(agent);
    return 0;
}

/* The agent has done what it inherited its fds for: from now on they are the program's alone. Its own
 * are all close-on-exec. */
static void let_go_of_inherited(void)
{
    struct dirent *entry;
    DIR *fds = opendir("/proc/self/fd");
    int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);

    if (null_fd >= 0)
        for (int fd = 0; fd <= 2; fd++)
            (void)dup3(null_fd, fd, O_CLOEXEC);
    mfd_close_at(&null_fd);
    if (chdir("/") < 0 ||
        fds == NULL) /* a file system stays busy, or a pipe open: no more than that */
        return;
    while ((entry = readdir(fds)) != NULL) {
        int fd = (int)strtol(entry->d_name, NULL, 10);

        if (fd > 2 && (fcntl(fd, F_GETFD) & FD_CLOEXEC) == 0)
            (void)close(fd);
    }
    (void)closedir(fds);
}

static int adopt_spawned(struct mfd_agent *agent, const struct mfd_spawn_result *result)
{
    int error = mfd_children_add(&agent->children, result->pid);

    if (error == 0)
        error = mfd_notify_add(&agent->notify, result->listener_fd);
    else
        (void)close(result->listener_fd);
    if (error < 0)
        (void)kill(result->pid, SIGKILL);
    return error;
}

static int do_spawn(struct mfd_agent *agent, const struct received *received, struct mfd_done *done)
{
    const struct mfd_spawn *spawn = &received->request.spawn;
    const bool inherit = (spawn->flags & MFD_SPAWN_INHERIT) != 0;
    struct mfd_program_view view;
    struct mfd_spawn_result result = {.stage = MFD_STAGE_BLOCK};
    struct mfd_filter_features features = mfd_filter_features_of(agent->flags);
    struct mfd_spawn_request request = {
        .view = &view,
        .features = &features,
        .flags = spawn->flags,
        .stdio = inherit ? NULL : &received->fds[1],
        .nofile = agent->nofile,
        .sigchld_ignored = agent->sigchld_ignored,
    };
    int error = -EBADMSG;
    gid_t fs_gid;
    uid_t fs_uid;

    agent->ready_any = (spawn->flags & MFD_SPAWN_READY_ANY) != 0;
    mfd_listening_rearm_all(agent);
    agent->noticed = 0;
    view = (struct mfd_program_view){0};
    if (agent->notify.n_listeners == MFD_LISTENERS_MAX ||
        !mfd_children_have_room(&agent->children)) {
        done->stage = MFD_STAGE_CLONE;
        return -ENOSPC;
    }
    if (received->n_fds == (inherit ? 1 : 4))
        error = mfd_program_open(received->fds[0], &view);
    if (error == 0) {
        /* the child is to find its directory and file with our own rights, not an earlier program's */
        fs_gid = (gid_t)setfsgid(getegid());
        fs_uid = (uid_t)setfsuid(geteuid());
        error = mfd_spawn(&request, &result);
        if (error < 0) {
            (void)setfsgid(fs_gid);
            (void)setfsuid(fs_uid);
        }
    }
    if (error == 0) {
        take_fs_identity(view.program->uid, view.program->gid);
        error = adopt_spawned(agent, &result);
        result.stage = error < 0 ? MFD_STAGE_CLONE : 0;
    }
    mfd_program_close(&view);
    done->stage = result.stage;
    done->value = (uint32_t)result.pid;
    if (error == 0) {
        agent->occupied = true;
        if (inherit)
            let_go_of_inherited();
        mfd_trim();
    }
    return error;
}

static int do_listen(struct mfd_agent *agent, const struct mfd_listen *request,
                     struct mfd_done *done)
{
    return mfd_listening_open(&agent->listening, &agent->netns, request, &done->value);
}

/* DONE.value says how many filters still have processes: 0, and the agent is about to exit. */
static int do_detach(struct mfd_agent *agent, struct mfd_done *done)
{
    agent->leave = MFD_DETACHED;
    /* a daemon in the background has its own hold on what it was handed, and can let go of it */
    for (unsigned i = agent->listening.n; i-- > 0;)
        (void)mfd_listening_close(&agent->listening, i);
    mfd_children_reap(agent);
    for (unsigned i = agent->notify.n_listeners; i-- > 0;) {
        struct pollfd polled = {.fd = agent->notify.listeners[i], .events = POLLIN};

        if (poll(&polled, 1, 0) == 1 && polled.revents == POLLHUP)
            mfd_notify_drop(agent, i);
    }
    done->value = agent->notify.n_listeners;
    return 0;
}

/* What was still to be said of the socket is not said of the next one with its index. */
static int do_unlisten(struct mfd_agent *agent, uint32_t index)
{
    int error = mfd_listening_close(&agent->listening, index);

    if (error == 0)
        agent->control.bound[index] = (struct mfd_bound_reports){0};
    return error;
}

static size_t size_of_request(uint16_t type)
{
    switch (type) {
    case MFD_MSG_SETUP:
        return sizeof(struct mfd_setup);
    case MFD_MSG_NETNS:
        return sizeof(struct mfd_netns_msg);
    case MFD_MSG_LISTEN:
        return sizeof(struct mfd_listen);
    case MFD_MSG_UNLISTEN:
        return sizeof(struct mfd_unlisten);
    case MFD_MSG_SPAWN:
        return sizeof(struct mfd_spawn);
    case MFD_MSG_SIGNAL:
        return sizeof(struct mfd_signal);
    case MFD_MSG_VERDICT:
        return sizeof(struct mfd_verdict_msg);
    case MFD_MSG_ROUTES:
    case MFD_MSG_DETACH:
        return sizeof(struct mfd_plain);
    default:
        return 0;
    }
}

static int carry_out(struct mfd_agent *agent, const struct received *received,
                     struct mfd_done *done)
{
    const union request *request = &received->request;

    switch (request->header.type) {
    case MFD_MSG_SETUP:
        return do_setup(agent, received);
    case MFD_MSG_ROUTES:
        return do_routes(agent, received);
    case MFD_MSG_NETNS:
        return do_netns(agent, received);
    case MFD_MSG_LISTEN:
        return do_listen(agent, &request->listen, done);
    case MFD_MSG_UNLISTEN:
        return do_unlisten(agent, request->unlisten.index);
    case MFD_MSG_SPAWN:
        return do_spawn(agent, received, done);
    case MFD_MSG_SIGNAL:
        return mfd_children_signal(agent, (int)request->signal.signo, request->signal.scope);
    default:
        return do_detach(agent, done);
    }
}

static void dispatch(struct mfd_agent *agent, const struct received *received, size_t size)
{
    const struct mfd_header *header = &received->request.header;
    struct mfd_done done = {
        .header = {.version = MFD_WIRE_VERSION, .type = MFD_MSG_DONE, .size = sizeof(done)},
    };
    int error;

    done.header.seq = header->seq;
    if (size >= sizeof(*header) && header->version != MFD_WIRE_VERSION) {
        done.error = EPROTONOSUPPORT;
        done.value = MFD_WIRE_VERSION;
        send_done(agent, &done, -1);
        return;
    }
    if (size < sizeof(*header) || size != header->size || size != size_of_request(header->type)) {
        done.error = EBADMSG;
        send_done(agent, &done, -1);
        return;
    }
    if (header->type == MFD_MSG_VERDICT) {
        mfd_asks_answer(agent, &received->request.verdict);
        return;
    }
    error = carry_out(agent, received, &done);
    done.error = (uint32_t)-error;
    send_done(agent, &done, header->type == MFD_MSG_SETUP ? agent->stats_fd : -1);
}

/* --- receiving ------------------------------------------------------------------------------------------ */

/* The other end is gone: on purpose after DETACH, else a crash. */
static void supervisor_gone(struct mfd_agent *agent)
{
    mfd_sources_end_control(&agent->sources, agent->control.fd);
    mfd_close_at(&agent->control.fd);
    agent->control.full = false;
    if (agent->leave == MFD_STAY) {
        agent->leave = MFD_LOST;
        agent->children.stop_deadline_ns = mfd_now_ns() + agent->stop_timeout_ms * MFD_NS_PER_MS;
        mfd_children_stop(&agent->children, (int)agent->stop_signal);
    }
    mfd_asks_default_all(agent);
    mfd_children_reap(agent); /* whose reports were owed may go now */
}

/* mfd_control_receive - carry out the next request */
void mfd_control_receive(struct mfd_agent *agent)
{
    struct received received = {.n_fds = MFD_CHANNEL_FDS};
    ssize_t n = mfd_rights_receive(agent->control.fd, &received.request, sizeof(received.request),
                                   received.fds, &received.n_fds, MSG_DONTWAIT);

    if (n == -EMSGSIZE || n == -EMFILE) { /* no request of ours, whatever its first bytes say */
        received.n_fds = 0;
        dispatch(agent, &received, 0);
        return;
    }
    /* no packet is empty: the end */
    if (n <= 0) {
        if (n != -EAGAIN && n != -EINTR)
            supervisor_gone(agent);
        return;
    }
    dispatch(agent, &received, (size_t)n);
    for (size_t i = 0; i < received.n_fds; i++)
        (void)close(received.fds[i]);
}
