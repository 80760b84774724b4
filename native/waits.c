/* waits.c - calls that wait in the agent for their socket
 *
 * Theory of operation: a blocking call that the agent carries out itself may have to wait: for a
 * connection to be made, for room to send, for a datagram. The agent does not; the call is put here with a
 * duplicate of its socket, and an epoll instance of the agent's own watches that, while others are served.
 * When something has happened to it, or its deadline (SO_SNDTIMEO, SO_RCVTIMEO) has passed, the call's
 * `proceed` is run, which says what the call returns, or that it has to wait on. The kernel, too, holds the socket for
 * as long as such a call lasts, so the duplicate changes nothing that anybody could see; it is closed before
 * the answer, because the program may close the socket next, and must find itself its only holder.
 *
 *   event       proceed(READY); edge-triggered, for a socket can have an error that is none of this call's
 *   deadline    proceed(TIMEOUT), which cannot wait on
 *   signal      answered as the kernel would (below)
 *   target dies forgotten: at once by its pidfd, so that its ports are free again
 *
 * Signals: once a call was received the target sleeps killable (WAIT_KILLABLE_RECV), so other signals stay
 * pending. Nothing tells the agent of them; it looks, in growing intervals, at the target's
 * /proc/PID/status. A pending signal that is not blocked ends the wait with ERESTARTSYS, as the kernel's own
 * waits do (net/core/sock.c, sock_intr_errno): the kernel, about to deliver the signal, makes it EINTR or
 * repeats the call, by SA_RESTART. ERESTARTSYS would be seen by a program in which another thread took the
 * signal meanwhile; where that can be, or the call has a time limit, it is EINTR.
 *
 * Limits: MFD_WAITS_MAX calls, two fds each, and no more than half of the agent's fds, so that calls of
 * others find some; half of the calls may be one process's, so that the others' can wait, too; a handler runs up
 * to LOOK_MAX_NS late; a target that waits here can be stopped, but not frozen or traced anew: what wakes it
 * for that, or for a signal, finds it asleep again, and from then on killable only (state D of ps(1)).
 * Source: seccomp_unotify(2), epoll(7), signal(7), socket(7), kernel/signal.c (complete_signal). */
#include <sys/epoll.h>
#include <sys/resource.h>

#include "kernel.h"
#include "meshfd.h"

#define LOOK_MIN_NS (5 * MFD_NS_PER_MS)   /* after this a signal is looked for first */
#define LOOK_MAX_NS (100 * MFD_NS_PER_MS) /* and at most so long after the last look */
#define LOOK_MORE_NS MFD_NS_PER_MS        /* more, for each call that waits: a look takes 20 us */
#define LOOK_PART 4                       /* in between: a quarter of the time waited */

#define FDS_EACH 2  /* the socket, and the target's pidfd */
#define FDS_KEPT 16 /* of the half that others have: what the agent itself always holds */

#define ERESTARTSYS 512 /* linux/errno.h, the kernel's own; never seen by programs */

enum {
    FOR_SOCKET,
    FOR_DEATH,
    KINDS
};

/* How many calls may wait with so many fds. */
static unsigned room_for(rlim_t n_fds)
{
    rlim_t n = n_fds < FDS_KEPT ? 0 : (n_fds - FDS_KEPT) / (2 * FDS_EACH);

    return n < MFD_WAITS_MAX ? (unsigned)n : MFD_WAITS_MAX;
}

/* mfd_waits_open - make room; RLIMIT_NOFILE has been raised
 * Return: 0 or -errno. */
int mfd_waits_open(struct mfd_waits *waits)
{
    struct rlimit nofile;

    if (getrlimit(RLIMIT_NOFILE, &nofile) < 0)
        return -errno;
    waits->room = room_for(nofile.rlim_cur);
    waits->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    waits->next_ns = UINT64_MAX;
    return waits->epoll_fd < 0 ? -errno : 0;
}

static void watch_no_more(struct mfd_waits *waits, int fd)
{
    if (fd >= 0)
        (void)epoll_ctl(waits->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
}

/* Return: the socket, which is the caller's now. */
static int take_out(struct mfd_agent *agent, struct mfd_wait *wait)
{
    struct mfd_waits *waits = &agent->waits;
    unsigned index;

    /* the open file lives on in the target, and would stay registered */
    watch_no_more(waits, wait->fd);
    watch_no_more(waits, wait->pidfd);
    mfd_close_at(&wait->pidfd);
    wait->proceed = NULL;
    index = (unsigned)(wait - waits->slots);
    wait->next_free = (int)waits->first_free - (int)(index + 1);
    waits->first_free = index;
    waits->n--;
    agent->stats->waits = waits->n;
    return mfd_take_fd(&wait->fd);
}

static void forget(struct mfd_agent *agent, struct mfd_wait *wait)
{
    int fd = take_out(agent, wait);

    mfd_release_at(&fd);
}

static int watch(const struct mfd_waits *waits, int fd, uint32_t events, unsigned index,
                 unsigned kind)
{
    struct epoll_event event = {.events = events, .data.u64 = (uint64_t)index * KINDS + kind};

    return epoll_ctl(waits->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

static uint64_t earlier(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* Have so many calls of this process their places that the rest is for others? */
static bool has_its_share(const struct mfd_waits *waits, pid_t process)
{
    const unsigned share = waits->room / 2;
    unsigned n = 0;

    if (waits->n < share)
        return false;
    for (unsigned i = 0; i < MFD_WAITS_MAX; i++)
        n += waits->slots[i].proceed != NULL && waits->slots[i].process == process;
    return n >= share;
}

static int put(struct mfd_agent *agent, const struct mfd_notification *call, int fd,
               const struct mfd_wait_plan *plan, uint32_t progress)
{
    struct mfd_waits *waits = &agent->waits;
    unsigned index = waits->first_free;
    struct mfd_wait *wait = &waits->slots[index < MFD_WAITS_MAX ? index : 0];
    const pid_t process = mfd_target_process(call->pid);
    MFD_CLOSE int pidfd = -1;
    int error;

    if (index >= waits->room || has_its_share(waits, process))
        return -EAGAIN;
    error = mfd_target_pidfd(call->pid, &pidfd);
    if (error == 0)
        error = watch(waits, pidfd, EPOLLIN, index, FOR_DEATH);
    if (error == 0)
        error = watch(waits, fd, plan->events | EPOLLET, index, FOR_SOCKET);
    if (error < 0)
        return error;
    waits->first_free = (unsigned)((int)index + 1 + wait->next_free);
    *wait = (struct mfd_wait){
        .call = *call,
        .proceed = plan->proceed,
        .events = plan->events,
        .fd = fd,
        .pidfd = mfd_take_fd(&pidfd),
        .process = process,
        .progress = progress,
        .progress_ns = mfd_now_ns(),
        .timeout_ns = plan->timeout_ns,
        .deadline_ns = plan->timeout_ns == 0 ? UINT64_MAX : call->received_ns + plan->timeout_ns,
        .look_ns = mfd_now_ns() + LOOK_MIN_NS,
    };
    waits->next_ns = earlier(waits->next_ns, earlier(wait->look_ns, wait->deadline_ns));
    agent->stats->waits = ++waits->n;
    return 0;
}

/* mfd_wait_for - have a call wait for its socket, and answer it when it is over
 * @fd: the agent's own duplicate; taken over on success
 * @progress: what proceed() has left there
 * Return: 0; -EAGAIN when MFD_WAITS_MAX calls wait, or half of that of this process, or the agent lacks fds or memory; -ESRCH when the
 * target is gone. Nothing is answered then. */
int mfd_wait_for(struct mfd_agent *agent, const struct mfd_notification *call, int fd,
                 const struct mfd_wait_plan *plan, uint32_t progress)
{
    int error = put(agent, call, fd, plan, progress);

    return error == 0 || error == -ESRCH ? error : -EAGAIN;
}

/* It is ready still, and nothing new will happen: edge-triggered, that is told by asking again. */
static void watch_anew(const struct mfd_agent *agent, const struct mfd_wait *wait)
{
    struct epoll_event event = {
        .events = wait->events | EPOLLET,
        .data.u64 = (uint64_t)(wait - agent->waits.slots) * KINDS + FOR_SOCKET,
    };

    (void)epoll_ctl(agent->waits.epoll_fd, EPOLL_CTL_MOD, wait->fd, &event);
}

/* The next message has the whole of SO_SNDTIMEO or SO_RCVTIMEO again, as each has in the kernel. */
static void note_progress(struct mfd_wait *wait, uint32_t progress)
{
    wait->progress = progress;
    wait->progress_ns = mfd_now_ns();
    if (wait->timeout_ns != 0)
        wait->deadline_ns = wait->progress_ns + wait->timeout_ns;
}

/* Return: whether the call was answered. */
static bool try_again(struct mfd_agent *agent, struct mfd_wait *wait, enum mfd_wake wake)
{
    struct mfd_notification call = wait->call;
    struct mfd_trial trial = {
        .fd = wait->fd, .wake = wake, .progress = wait->progress, .progress_ns = wait->progress_ns};

    if (!wait->proceed(agent, &call, &trial)) {
        if (wait->progress != trial.progress)
            note_progress(wait, trial.progress);
        if (trial.again)
            watch_anew(agent, wait);
        return false;
    }
    forget(agent, wait);
    mfd_answer(agent, &call, trial.result);
    return true;
}

/* mfd_waits_run - the epoll instance is readable: go on with what is ready, one after the other, so that
 * an event is never about an earlier user of its slot */
void mfd_waits_run(struct mfd_agent *agent)
{
    struct epoll_event event;

    for (unsigned n = agent->waits.n; n > 0 && epoll_wait(agent->waits.epoll_fd, &event, 1, 0) == 1;
         n--) {
        struct mfd_wait *wait = &agent->waits.slots[event.data.u64 / KINDS];

        if (event.data.u64 % KINDS == FOR_DEATH)
            forget(agent, wait);
        else
            (void)try_again(agent, wait, MFD_WAKE_READY);
    }
}

static void interrupt(struct mfd_agent *agent, struct mfd_wait *wait, enum mfd_signalled signalled)
{
    struct mfd_notification call = wait->call;
    bool restart = signalled == MFD_SIGNALLED && wait->deadline_ns == UINT64_MAX;

    if (try_again(agent, wait, MFD_WAKE_SIGNAL)) /* what was done so far is not done again */
        return;

    forget(agent, wait);
    mfd_answer(agent, &call, restart ? -ERESTARTSYS : -EINTR);
}

/* A signal that another thread may take is the target's if it is still there at the next look. */
static void look(struct mfd_agent *agent, struct mfd_wait *wait, uint64_t now_ns)
{
    enum mfd_signalled signalled = mfd_target_signalled(wait->call.pid);
    uint64_t interval = (now_ns - wait->call.received_ns) / LOOK_PART;

    if (!mfd_notify_is_alive(&wait->call)) {
        forget(agent, wait);
        return;
    }
    if (signalled == MFD_SIGNALLED || (signalled == MFD_SIGNALLED_PERHAPS && wait->suspected)) {
        interrupt(agent, wait, signalled);
        return;
    }
    wait->suspected = signalled == MFD_SIGNALLED_PERHAPS;
    if (wait->suspected || interval < LOOK_MIN_NS)
        interval = LOOK_MIN_NS;
    wait->look_ns = now_ns + earlier(interval, LOOK_MAX_NS + agent->waits.n * LOOK_MORE_NS);
}

/* mfd_waits_expire - what is due: deadlines, and looks at signals */
void mfd_waits_expire(struct mfd_agent *agent, uint64_t now_ns)
{
    struct mfd_waits *waits = &agent->waits;
    uint64_t next_ns = UINT64_MAX;

    if (waits->next_ns > now_ns)
        return;
    for (unsigned i = 0; waits->n > 0 && i < MFD_WAITS_MAX; i++) {
        struct mfd_wait *wait = &waits->slots[i];

        if (wait->proceed != NULL && wait->deadline_ns <= now_ns)
            (void)try_again(agent, wait, MFD_WAKE_TIMEOUT);
        else if (wait->proceed != NULL && wait->look_ns <= now_ns)
            look(agent, wait, now_ns);
        if (wait->proceed != NULL)
            next_ns = earlier(next_ns, earlier(wait->look_ns, wait->deadline_ns));
    }
    waits->next_ns = next_ns;
}

/* mfd_waits_next_ns - when something may be due; UINT64_MAX: nothing waits */
uint64_t mfd_waits_next_ns(const struct mfd_waits *waits)
{
    return waits->next_ns;
}

/* mfd_waits_forget - the listener is about to be closed, its targets are gone */
void mfd_waits_forget(struct mfd_agent *agent, int listener)
{
    for (unsigned i = 0; agent->waits.n > 0 && i < MFD_WAITS_MAX; i++) {
        struct mfd_wait *wait = &agent->waits.slots[i];

        if (wait->proceed != NULL && wait->call.listener == listener)
            forget(agent, wait);
    }
}
