/* queue.c - connect() waits for room in the queue of a unix socket
 *
 * Theory of operation: where a server's queue is full, a connect() of TCP waits: the kernel drops its SYN, and
 * sends it again, and again. That of a unix socket that is not to wait fails at once with EAGAIN; and nothing
 * tells when there is room. So, when every endpoint has refused and one of them for that reason, a
 * blocking connect() is put among the calls that wait (waits.c) for a timer, and that endpoint is tried in growing
 * intervals, which begin short, because a server that lives empties its queue soon.
 *
 *   room                 the socket is replaced, connect() returns 0
 *   SO_SNDTIMEO, or after PATIENCE_NS, as TCP gives up by default       ETIMEDOUT
 *   another refusal      ECONNREFUSED
 *   a signal             as everywhere; the socket is unconnected, and connect() may be called again
 *
 * Meanwhile nothing of the program's is held; what it has at the fd when there is room is looked at anew.
 * A non-blocking connect() is refused at once: no unix socket can be shown that is about to be connected.
 *
 * Limits: MFD_QUEUED_MAX; more are refused. A call that a signal, or its thread's death, has ended leaves its
 * entry behind; such a one is free.
 * Source: unix(7), tcp(7) tcp_syn_retries, net/unix/af_unix.c (unix_stream_connect). */
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>

#include "meshfd.h"

#define PATIENCE_NS (127 * MFD_NS_PER_S) /* six SYNs more, after 1, 2, 4, ... seconds */
#define PAUSE_MIN_NS MFD_NS_PER_MS
#define PAUSE_MAX_NS (50 * MFD_NS_PER_MS)
#define PAUSE_PART 4 /* in between: a quarter of the time waited */

static bool is_call(const struct mfd_queued *queued, const struct mfd_notification *call)
{
    return queued->used && queued->attempt.call.id == call->id &&
           queued->attempt.call.listener == call->listener;
}

static struct mfd_queued *find(struct mfd_queue *queue, const struct mfd_notification *call)
{
    for (unsigned i = 0; i < MFD_QUEUED_MAX; i++)
        if (is_call(&queue->calls[i], call))
            return &queue->calls[i];
    return NULL;
}

static struct mfd_queued *find_room(struct mfd_queue *queue)
{
    for (unsigned i = 0; i < MFD_QUEUED_MAX; i++)
        if (!queue->calls[i].used)
            return &queue->calls[i];
    for (unsigned i = 0; i < MFD_QUEUED_MAX; i++)
        if (!mfd_notify_is_alive(&queue->calls[i].attempt.call))
            return &queue->calls[i];
    return NULL;
}

static int wind_up(int timer_fd, uint64_t waited_ns)
{
    uint64_t pause = waited_ns / PAUSE_PART;
    struct itimerspec when = {0};

    if (pause < PAUSE_MIN_NS)
        pause = PAUSE_MIN_NS;
    if (pause > PAUSE_MAX_NS)
        pause = PAUSE_MAX_NS;
    when.it_value.tv_nsec = (long)pause;
    return timerfd_settime(timer_fd, 0, &when, NULL) < 0 ? -errno : 0;
}

/* Put it where the program has its TCP socket, if it still has. Return: the answer. */
static int replace(struct mfd_agent *agent, const struct mfd_queued *queued, int standin_fd)
{
    const struct mfd_notification *call = &queued->attempt.call;
    const int fd = (int)call->call.args[0];
    MFD_RELEASE int own_fd = -1;

    if (mfd_target_open_fd(call->pid, fd, &own_fd) < 0 ||
        mfd_socket_cookie(own_fd) != queued->cookie) {
        (void)close(standin_fd); /* by another thread: closed, or connected */
        return mfd_standin_find(agent, call, fd) == NULL ? -ECONNABORTED : -EISCONN;
    }
    return mfd_standin_replace(agent, &queued->attempt, mfd_take_fd(&own_fd), standin_fd, true);
}

static void account(struct mfd_agent *agent, const struct mfd_queued *queued, int result)
{
    const struct mfd_candidates candidates = {
        .endpoints = {&queued->endpoint}, .tallies = {queued->tally}, .n = 1};
    const struct mfd_outcome outcome = {.error = -result, .attempts = 1};

    mfd_account_rule(agent, queued->attempt.rule);
    mfd_account_outcome(agent, &candidates, &outcome);
    mfd_account_redirected(agent, &queued->attempt, &candidates, &outcome,
                           mfd_account_time(agent, &queued->attempt.call));
}

static bool proceed(struct mfd_agent *agent, const struct mfd_notification *call,
                    struct mfd_trial *trial)
{
    struct mfd_queued *queued = find(&agent->queue, call);
    uint64_t waited_ns = mfd_now_ns() - call->received_ns;
    int standin_fd = -1;
    int result;

    trial->result = -EINTR;
    if (queued == NULL) /* its target is gone */
        return true;
    result = mfd_standin_open(call, &queued->endpoint, &standin_fd);
    if (result == -EAGAIN && trial->wake != MFD_WAKE_TIMEOUT && waited_ns < PATIENCE_NS &&
        (trial->wake == MFD_WAKE_SIGNAL || wind_up(trial->fd, waited_ns) == 0))
        return false;
    if (result == 0)
        result = replace(agent, queued, standin_fd);
    else
        result = result == -EAGAIN ? -ETIMEDOUT : -ECONNREFUSED;
    if (result < 0)
        mfd_parked_settle(agent, call->pid, (int)call->call.args[0]);
    account(agent, queued, result);
    queued->used = false;
    trial->result = result;
    return true;
}

/* mfd_queue_wait - have a blocking connect() wait for room
 * @socket_fd: our duplicate of the program's socket
 * @index: of the candidate whose queue is full
 * Return: whether it waits now; nothing has happened if not. */
bool mfd_queue_wait(struct mfd_agent *agent, const struct mfd_attempt *attempt, int socket_fd,
                    const struct mfd_candidates *candidates, int index)
{
    const struct mfd_wait_plan plan = {
        .proceed = proceed,
        .events = EPOLLIN,
        .timeout_ns = mfd_socket_timeout_ns(socket_fd, SO_SNDTIMEO),
    };
    struct mfd_queued *queued = find_room(&agent->queue);
    MFD_CLOSE int timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);

    if (queued == NULL || timer_fd < 0 || wind_up(timer_fd, 0) < 0 ||
        mfd_wait_for(agent, &attempt->call, timer_fd, &plan, 0) < 0)
        return false;
    (void)mfd_take_fd(&timer_fd);
    *queued = (struct mfd_queued){
        .used = true,
        .attempt = *attempt,
        .endpoint = *candidates->endpoints[index],
        .tally = candidates->tallies[index],
        .cookie = mfd_socket_cookie(socket_fd),
    };
    return true;
}

/* mfd_queue_forget_rules - the route table is replaced: calls that wait are counted for none of its rules */
void mfd_queue_forget_rules(struct mfd_queue *queue)
{
    for (unsigned i = 0; i < MFD_QUEUED_MAX; i++) {
        queue->calls[i].attempt.rule = MFD_ANY;
        queue->calls[i].tally = NULL;
    }
}
