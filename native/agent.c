/* agent.c - meshfd-agent: one process, one thread, one loop
 *
 * Theory of operation: the loop polls the listeners of the filters that it has installed, and all else that may
 * happen (sources.c): the control channel, SIGCHLD, the sockets that calls wait for (waits.c), children that try
 * ports (forbidden.c), deadlines (leases, verdicts, waits, the end of a stop). Whatever is ready is handled
 * without waiting, one call of each listener, and then the rest. All signals are blocked: a terminal's Ctrl-C is
 * the program's business, and a signal inside ADDFD with SEND would be felt by the target (notify.c).
 *
 * Life: started by a supervisor with `--control FD`, and keeps no other fd but standard error; or
 * with `--inherit FD`, and keeps all, for the program that it spawns. It ends when the supervisor has left (DETACH, or
 * the channel's end) and no process is left to serve.
 *
 *   leave     control channel   what runs
 *   STAY      open              is served
 *   DETACHED  may close         is served to its end
 *   LOST      closed            is stopped: stop_signal, SIGTERM for what the main process leaves,
 *                               after stop_timeout SIGKILL
 *
 * It is not dumpable, so a program of the same user can neither trace it nor look at its fds.
 * Source: signalfd(2), prctl(2). */
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "kernel.h"
#include "meshfd.h"

#define EXIT_SETUP 3 /* could not be set up; the supervisor sees the channel end */

static struct mfd_agent agent; /* large, and there is one */

/* --- setting up: may fail ---------------------------------------------------------------------------------- */

static int raise_nofile(struct mfd_agent *self)
{
    struct rlimit raised;

    if (getrlimit(RLIMIT_NOFILE, &self->nofile) < 0)
        return -errno;
    raised = self->nofile;
    raised.rlim_cur = raised.rlim_max;
    return setrlimit(RLIMIT_NOFILE, &raised) < 0 ? -errno : 0;
}

static int open_signals(struct mfd_agent *self)
{
    sigset_t signals;

    sigfillset(&signals);
    if (sigprocmask(SIG_SETMASK, &signals, NULL) < 0)
        return -errno;
    sigemptyset(&signals);
    sigaddset(&signals, SIGCHLD);
    self->signal_fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
    return self->signal_fd < 0 ? -errno : 0;
}

/* What whoever started the supervisor left open is not for services. */
static int close_others(int control_fd)
{
    if (control_fd > STDERR_FILENO + 1 &&
        close_range(STDERR_FILENO + 1, (unsigned)control_fd - 1, 0) < 0)
        return -errno;
    return close_range((unsigned)control_fd + 1, ~0U, 0) < 0 ? -errno : 0;
}

/* A standard file that is closed stays closed for the program, but no fd of ours may take its number. */
static int fill_standard_files(void)
{
    int fd;

    do
        fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd < 0)
        return -errno;
    (void)close(fd);
    return 0;
}

/* posix_spawn(3) of the C library leaves its own two signals ignored, and programs would inherit that.
 * sigaction(3) refuses to touch them. */
static void restore_library_signals(void)
{
    static const int signals[] = {32, 33}; /* SIGCANCEL and SIGSETXID of nptl */
    const struct {
        void (*handler)(int);
        unsigned long flags;
        void (*restorer)(void);
        uint64_t mask;
    } action = {.handler = SIG_DFL};

    for (size_t i = 0; i < MFD_COUNT(signals); i++)
        (void)syscall(SYS_rt_sigaction, signals[i], &action, NULL, sizeof(action.mask));
}

/* Ignored, our children would be reaped by the kernel and their ends lost (wait(2), "SIGCHLD"). Programs
 * find it as we did. */
static int take_ends_of_children(struct mfd_agent *self)
{
    const struct sigaction action = {.sa_handler = SIG_DFL};
    struct sigaction inherited;

    if (sigaction(SIGCHLD, &action, &inherited) < 0)
        return -errno;
    self->sigchld_ignored = inherited.sa_handler == SIG_IGN;
    return 0;
}

/* The process that started us to run its command, and that its own parent takes for the command: the
 * other end of the control channel, if it is our parent still. */
static int open_foreground(int control_fd)
{
    struct ucred peer;
    socklen_t size = sizeof(peer);
    int fd;

    if (getsockopt(control_fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0)
        return -1;
    fd = (int)syscall(SYS_pidfd_open, peer.pid, 0);
    if (fd >= 0 && getppid() != peer.pid)
        mfd_close_at(&fd);
    return fd;
}

static int open_sources(struct mfd_agent *self)
{
    const int fds[MFD_SOURCE_TIMER] = {
        [MFD_SOURCE_CONTROL] = self->control.fd,
        [MFD_SOURCE_SIGNAL] = self->signal_fd,
        [MFD_SOURCE_WAITS] = self->waits.epoll_fd,
        [MFD_SOURCE_FORBIDDEN] = self->forbidden.epoll_fd,
    };

    return mfd_sources_open(&self->sources, fds);
}

static int set_up(struct mfd_agent *self, int control_fd, bool inherit)
{
    int error;

    self->foreground_fd = -1;
    self->control.fd = control_fd;
    self->children.none = true;
    self->cgroup.fd = -1;
    self->netns.own_fd = -1;
    self->random = (uint32_t)mfd_now_ns() | 1;
    mfd_class_open();
    if (fcntl(control_fd, F_SETFD, FD_CLOEXEC) < 0)
        return -errno;
    if (prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) < 0 || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
        return -errno;
    restore_library_signals();
    error = take_ends_of_children(self);
    if (error == 0)
        error = inherit ? 0 : close_others(control_fd);
    if (error == 0)
        error = fill_standard_files();
    if (error == 0 && inherit)
        self->foreground_fd = open_foreground(control_fd);
    if (error == 0)
        error = mfd_netns_learn(&self->netns);
    if (error == 0)
        error = raise_nofile(self);
    if (error == 0)
        error = open_signals(self);
    if (error == 0)
        error = mfd_stats_open(&self->stats, &self->stats_fd);
    if (error == 0)
        error = mfd_notify_open(&self->notify);
    if (error == 0)
        error = mfd_waits_open(&self->waits);
    if (error == 0)
        error = mfd_forbidden_open(&self->forbidden);
    if (error == 0)
        error = mfd_parked_open(&self->parked);
    if (error == 0)
        error = open_sources(self);
    return error;
}

/* --- running: drops one call rather than stop --------------------------------------------------------------- */

static void handle_call(struct mfd_agent *self, const struct mfd_notification *call)
{
    self->stats->calls++;
    switch (call->call.kind) {
    case MFD_CALL_SOCKET:
        mfd_socket_handle(self, call);
        mfd_stats_time(self->stats->socket_ns, mfd_now_ns() - call->received_ns);
        break;
    case MFD_CALL_CONNECT:
        mfd_connect_handle(self, call);
        break;
    case MFD_CALL_BIND:
        mfd_bind_handle(self, call);
        break;
    case MFD_CALL_LISTEN:
        mfd_listen_handle(self, call);
        break;
    case MFD_CALL_SENDTO:
    case MFD_CALL_SENDMSG:
    case MFD_CALL_SENDMMSG:
        mfd_send_handle(self, call);
        break;
    case MFD_CALL_RECVFROM:
    case MFD_CALL_RECVMSG:
    case MFD_CALL_RECVMMSG:
        mfd_receive_handle(self, call);
        break;
    case MFD_CALL_GETPEERNAME:
        if (!mfd_standin_name(self, call, true))
            mfd_getpeername_handle(self, call);
        break;
    case MFD_CALL_GETSOCKNAME:
        if (!mfd_standin_name(self, call, false))
            mfd_answer_continue(self, call);
        break;
    case MFD_CALL_SETSOCKOPT:
        mfd_standin_option_handle(self, call, true);
        break;
    case MFD_CALL_GETSOCKOPT:
        mfd_standin_option_handle(self, call, false);
        break;
    case MFD_CALL_EPOLL_CTL:
        mfd_epoll_ctl_handle(self, call);
        break;
    case MFD_CALL_RESTRICT_SELF:
        mfd_restrict_handle(self, call);
        break;
    case MFD_CALL_LOST: /* socketcall(2) with arguments that are not there, as the kernel says */
        mfd_answer(self, call, -EFAULT);
        break;
    case MFD_CALL_OTHER:
        /* socketcall(2) of a program out of reach: its arguments could become anything */
        if (call->call.in_memory)
            mfd_account_unseen(self, call, -EPERM, NULL);
        if (call->call.in_memory && (self->flags & MFD_SETUP_STRICT) != 0)
            mfd_answer(self, call, -EACCES);
        else
            mfd_answer_continue(self, call);
        break;
    }
}

static void serve_listener(struct mfd_agent *self, unsigned index, short events)
{
    struct mfd_notification call;

    if ((events & POLLIN) != 0 && mfd_notify_receive(&self->notify, index, &call) == 0)
        handle_call(self, &call);
    /* POLLERR alone means that the kernel was interrupted while it looked */
    if ((events & (POLLIN | POLLHUP)) != POLLHUP)
        return;
    mfd_notify_drop(self, index);
}

static void take_signals(struct mfd_agent *self)
{
    struct signalfd_siginfo info;

    while (read(self->signal_fd, &info, sizeof(info)) > 0)
        continue;
    mfd_children_reap(self);
}

static void on_deadlines(struct mfd_agent *self)
{
    uint64_t now = mfd_now_ns();

    mfd_leases_expire(&self->leases, now);
    mfd_asks_expire(self, now);
    mfd_waits_expire(self, now);
    mfd_parked_expire(&self->parked, now);
    mfd_replaced_expire(self, now);
    if (mfd_target_next_ns() <= now)
        mfd_target_forget_all();
    mfd_class_expire(self, now);
    if (self->children.stop_deadline_ns != 0 && self->children.stop_deadline_ns <= now) {
        self->children.stop_deadline_ns = 0;
        mfd_children_end(&self->children);
    }
}

/* Return: when on_deadlines() has something to do; UINT64_MAX: never. */
static uint64_t next_deadline_ns(const struct mfd_agent *self)
{
    const uint64_t deadlines[] = {
        mfd_leases_next_ns(&self->leases),
        mfd_asks_next_ns(&self->asks),
        mfd_target_next_ns(),
        mfd_class_next_ns(),
        mfd_waits_next_ns(&self->waits),
        mfd_parked_next_ns(&self->parked),
        mfd_replaced_next_ns(&self->watched),
        self->children.stop_deadline_ns == 0 ? UINT64_MAX : self->children.stop_deadline_ns,
    };
    uint64_t next = UINT64_MAX;

    for (size_t i = 0; i < MFD_COUNT(deadlines); i++)
        if (deadlines[i] < next)
            next = deadlines[i];
    return next;
}

/* The last process is gone: say so once; the answer goes through the same "full" flag as all. */
static void report_empty(struct mfd_agent *self)
{
    struct mfd_plain message;

    if (!self->occupied || self->notify.n_listeners > 0 || !self->children.none)
        return;
    if (self->leave == MFD_STAY &&
        mfd_control_report(self, &message, MFD_MSG_EMPTY, sizeof(message)) == -EAGAIN) {
        self->control.full = true;
        return;
    }
    self->occupied = false;
}

static bool is_done(const struct mfd_agent *self)
{
    return self->leave != MFD_STAY && self->notify.n_listeners == 0 &&
           (self->leave == MFD_DETACHED || self->children.none);
}

static uint32_t control_events(const struct mfd_control *control)
{
    return (control->full ? EPOLLOUT : 0U) | (control->done.header.type == 0 ? EPOLLIN : 0U);
}

static void serve_sources(struct mfd_agent *self)
{
    uint32_t events[MFD_SOURCES];
    uint32_t control;

    mfd_sources_take(&self->sources, events);
    if (events[MFD_SOURCE_WAITS] != 0)
        mfd_waits_run(self);
    if (events[MFD_SOURCE_FORBIDDEN] != 0)
        mfd_forbidden_run(self);
    control = events[MFD_SOURCE_CONTROL];
    if ((control & EPOLLOUT) != 0)
        mfd_control_flush(self);
    if ((control & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0 && self->control.done.header.type == 0)
        mfd_control_receive(self);
    if (events[MFD_SOURCE_SIGNAL] != 0)
        take_signals(self);
    if (events[MFD_SOURCE_TIMER] != 0)
        on_deadlines(self);
}

enum {
    POLL_SOURCES,
    POLL_LISTENERS
};

static void run(struct mfd_agent *self)
{
    while (!is_done(self)) {
        struct pollfd polled[POLL_LISTENERS + MFD_LISTENERS_MAX];
        unsigned n_listeners = self->notify.n_listeners;

        mfd_sources_want(&self->sources, self->control.fd, control_events(&self->control));
        mfd_sources_await(&self->sources, next_deadline_ns(self));
        polled[POLL_SOURCES] = (struct pollfd){.fd = self->sources.epoll_fd, .events = POLLIN};
        for (unsigned i = 0; i < n_listeners; i++)
            polled[POLL_LISTENERS + i] =
                (struct pollfd){.fd = self->notify.listeners[i], .events = POLLIN};
        if (poll(polled, POLL_LISTENERS + n_listeners, self->names.n_unchecked > 0 ? 0 : -1) < 0)
            continue; /* EINTR cannot be: all signals are blocked. ENOMEM: again */
        /* from the last: dropping one puts the last in its place */
        for (unsigned i = n_listeners; i-- > 0;)
            if (polled[POLL_LISTENERS + i].revents != 0)
                serve_listener(self, i, polled[POLL_LISTENERS + i].revents);
        if (polled[POLL_SOURCES].revents != 0)
            serve_sources(self);
        mfd_names_step(self);
        self->stats->leases = self->leases.n_held;
        self->stats->listeners = self->notify.n_listeners;
        report_empty(self);
    }
}

int main(int argc, char **argv)
{
    bool inherit = argc == 3 && strcmp(argv[1], "--inherit") == 0;
    int error;

    if (argc != 3 || (!inherit && strcmp(argv[1], "--control") != 0)) {
        (void)fprintf(stderr, "meshfd-agent: started by meshfd, not by hand\n");
        return EXIT_SETUP;
    }
    error = set_up(&agent, atoi(argv[2]), inherit);
    if (error < 0) {
        (void)fprintf(stderr, "meshfd-agent: cannot be set up: %s\n", strerror(-error));
        return EXIT_SETUP;
    }
    run(&agent);
    mfd_class_forget();
    if (agent.leave == MFD_LOST)
        mfd_cgroup_remove_own();
    return 0;
}
