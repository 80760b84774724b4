/* send.c - sendto(), sendmsg() and sendmmsg() of datagrams, and TCP Fast Open
 *
 * Theory of operation: trapped in services that route UDP, where the call names an address (sendto) or may name
 * one (sendmsg, sendmmsg: it lies in memory). A datagram to a routed address is copied once, address and all,
 * and sent by the agent through a duplicate of the program's own socket, so that it has the socket's port,
 * options and errors. Datagrams of one socket to one address keep to their endpoint (names.c).
 *
 *   redirect   sent to the endpoint; the first that does not refuse at once
 *   deny       the configured errno
 *   ask        the default verdict: a datagram does not wait for a supervisor
 *   pass       CONTINUE; in a strict service, and beside others in one sendmmsg(), sent as copied
 *   no address as pass
 *
  * A blocking socket without room waits in waits.c. sendmmsg() sends one after the other, and says how many
 * when one fails after the first; after MFD_MESSAGES_TURN of them others have their turn, and a call that
 * does not block ends.
 *
 * Rights: control messages that need a privilege are sent for the privileged only (message.c).
 *
 * MSG_ZEROCOPY pins the sender's pages until the datagram has left, and these would be the agent's: it fails
 * with ENOBUFS, upon which a program sends without (Documentation/networking/msg_zerocopy.rst).
 *
 * TCP Fast Open (MSG_FASTOPEN) is decided and carried out as the connect() that it contains (connect.c). The
 * attempt is started without data; then CONTINUE: the program's own call finds the socket connecting, and sends
 * when it is connected (net/ipv4/tcp.c, tcp_sendmsg_fastopen). So the data is not in the SYN.
 *
 * Source: send(2), udp(7), sendmmsg(2), net/ipv4/udp.c (udp_sendmsg), net/ipv6/udp.c (udpv6_sendmsg). */
#include <string.h>
#include <sys/epoll.h>

#include "kernel.h"
#include "meshfd.h"

static bool is_strict(const struct mfd_agent *agent)
{
    return (agent->flags & MFD_SETUP_STRICT) != 0;
}

static int flags_of(const struct mfd_notification *call)
{
    return (int)call->call.args[call->call.kind == MFD_CALL_SENDMSG ? 2 : 3];
}

/* Messages that the call may send. */
static uint32_t n_messages(const struct mfd_notification *call)
{
    const uint32_t most = 1024; /* linux/uio.h: UIO_MAXIOV, net/socket.c (__sys_sendmmsg) */
    uint32_t n = (uint32_t)call->call.args[2];

    if (call->call.kind != MFD_CALL_SENDMMSG)
        return 1;
    return n < most ? n : most;
}

static int read_message(const struct mfd_notification *call, uint32_t index,
                        struct mfd_message *ret)
{
    const uint64_t *args = call->call.args;

    if (call->call.kind != MFD_CALL_SENDTO)
        return mfd_message_read(
            call,
            call->call.kind == MFD_CALL_SENDMSG ? args[1] : mfd_message_at(call, args[1], index),
            ret);
    *ret = (struct mfd_message){.iov = args[1], .n_iov = args[2], .name = args[4]};
    if (args[4] == 0) /* then its length says nothing */
        return 0;
    ret->name_size = (uint32_t)args[5];
    return ret->name_size > MFD_SOCKADDR_MAX ? -EINVAL : 0; /* move_addr_to_kernel() */
}

struct outgoing {
    const struct mfd_notification *call;
    int fd;
    int domain;
    bool is_read; /* the next message is read and decided about, what follows is of it */
    struct mfd_message message;
    uint64_t cookie; /* 0: not asked yet */
    union mfd_sockaddr name;
    socklen_t name_size;
    bool is_named;
    struct mfd_address asked;
    struct mfd_match match; /* what is decided about it */
    bool is_first;          /* of this socket to a routed address: */
    struct mfd_candidates candidates;
    struct mfd_outcome outcome;
};

/* The address, as UDP understands it. AF_UNSPEC: on an IPv4 socket it means AF_INET, on an IPv6 one no address
 * at all. What is no address passes, and so does an IPv6 one on an IPv4 socket: the kernel has the errno. */
static int read_name(struct mfd_agent *agent, const struct mfd_message *message,
                     struct outgoing *out)
{
    struct mfd_address address;
    int error = mfd_message_name(out->call, message, &out->name);

    out->name_size = message->name_size;
    out->is_named = message->name != 0;
    out->match = (struct mfd_match){.verdict = MFD_PASS, .rule = MFD_ANY};
    if (error < 0 || message->name_size == 0)
        return error;
    if (out->name.any.sa_family == AF_UNSPEC && out->domain == AF_INET)
        out->name.any.sa_family = AF_INET;
    if (out->domain == AF_INET && out->name.any.sa_family != AF_INET)
        return 0;
    if (mfd_address_parse(&out->name, out->name_size, &out->asked) < 0)
        return 0;
    address = out->asked;
    if (mfd_address_is_wildcard(&address)) /* this host, as in connect() */
        address.bytes[address.family == AF_INET6 ? 15 : 3] = 1;
    if (address.family == AF_INET && mfd_address_is_wildcard(&out->asked))
        address.bytes[0] = 127;
    mfd_routes_find(agent->table, IPPROTO_UDP, &address, &out->match);
    if (out->match.verdict == MFD_ASK) {
        struct mfd_decision decision;

        mfd_asks_default(agent, &decision);
        out->match.verdict = decision.verdict;
        out->match.argument = (uint32_t)decision.error;
    }
    return 0;
}

/* Return: bytes sent, or -errno. */
static int transmit(const struct outgoing *out, struct msghdr *message, union mfd_sockaddr *to,
                    socklen_t to_size)
{
    const int flags = flags_of(out->call);
    const struct iovec payload = message->msg_iovlen == 0 ? (struct iovec){0} : *message->msg_iov;
    ssize_t n;

    if ((flags & MSG_ZEROCOPY) != 0)
        return -ENOBUFS;
    message->msg_name = out->is_named ? to : NULL;
    message->msg_namelen = to_size;
    if (out->call->call.kind == MFD_CALL_SENDTO) /* which alone can have an address of no length */
        n = sendto(out->fd, payload.iov_base, payload.iov_len, flags | MSG_DONTWAIT | MSG_NOSIGNAL,
                   message->msg_name, to_size);
    else
        n = sendmsg(out->fd, message, flags | MSG_DONTWAIT | MSG_NOSIGNAL);
    return n < 0 ? -errno : (int)n;
}

static int transmit_to(const struct outgoing *out, struct msghdr *message,
                       const struct mfd_address *address)
{
    union mfd_sockaddr to;
    socklen_t to_size;

    if (mfd_address_format(address, out->domain, &to, &to_size) < 0)
        return -ENETUNREACH;
    return transmit(out, message, &to, to_size);
}

/* The first datagram of this socket to this address, or the first since its endpoint has left. */
static int redirect_first(struct mfd_agent *agent, struct outgoing *out, struct msghdr *message)
{
    struct mfd_outcome *outcome = &out->outcome;
    int result = -ENETUNREACH;

    out->is_first = true;
    mfd_balance_choose(agent, out->match.argument, &out->candidates);
    *outcome = (struct mfd_outcome){.error = ENETUNREACH, .used = -1};
    for (unsigned i = 0; i < out->candidates.n; i++) {
        result = transmit_to(out, message, &out->candidates.endpoints[i]->address);
        outcome->attempts++;
        outcome->used = (int)i;
        outcome->error = result < 0 ? -result : 0;
        if (result >= 0 || !mfd_candidates_is_refusal(-result))
            break;
    }
    if (result >= 0)
        (void)mfd_names_put(&agent->names, out->cookie, &out->asked,
                            &out->candidates.endpoints[outcome->used]->address);
    return result;
}

static int redirect(struct mfd_agent *agent, struct outgoing *out, struct msghdr *message)
{
    const struct mfd_name *name;

    if (out->cookie == 0)
        out->cookie = mfd_socket_cookie(out->fd);
    name = mfd_names_by_asked(&agent->names, out->cookie, &out->asked);
    if (name != NULL && mfd_balance_serves(agent->table, out->match.argument, &name->given))
        return transmit_to(out, message, &name->given);
    return redirect_first(agent, out, message);
}

/* A message counts once, when it is over: it was sent, or has failed. One without room is not; it, or the
 * program, tries again. */
static void count(struct mfd_agent *agent, const struct outgoing *out)
{
    const struct mfd_attempt attempt = {
        .call = *out->call, .asked = out->asked, .rule = out->match.rule};
    const uint64_t nanoseconds = mfd_now_ns() - out->call->received_ns;

    if (out->match.verdict == MFD_DENY) {
        agent->stats->denied++;
        mfd_account_rule(agent, attempt.rule);
        mfd_account_denied(agent, &attempt, (int)out->match.argument, nanoseconds);
    } else if (out->match.verdict != MFD_REDIRECT) {
        agent->stats->passed++;
    } else if (out->is_first) {
        mfd_account_rule(agent, attempt.rule);
        mfd_account_outcome(agent, &out->candidates, &out->outcome);
        mfd_account_redirected(agent, &attempt, &out->candidates, &out->outcome, nanoseconds);
    }
}

/* A message's address is copied once, also when it is looked at first (concerns_us). */
static int read_and_decide(struct mfd_agent *agent, struct outgoing *out, uint32_t index)
{
    int error = out->is_read ? 0 : read_message(out->call, index, &out->message);

    if (error == 0 && !out->is_read)
        error = read_name(agent, &out->message, out);
    out->is_read = false;
    return error;
}

/* Return: bytes sent, or -errno. */
static int send_one(struct mfd_agent *agent, struct outgoing *out, uint32_t index)
{
    struct msghdr copied = {0};
    int error = read_and_decide(agent, out, index);

    if (error == 0)
        error = mfd_message_gather(out->call, &out->message, &copied);
    if (error < 0)
        return error;
    if (!mfd_notify_is_alive(out->call))
        return -ESRCH;
    out->is_first = false;
    if (out->match.verdict == MFD_DENY)
        error = -(int)out->match.argument;
    else if (out->match.verdict == MFD_REDIRECT)
        error = redirect(agent, out, &copied);
    else
        error = transmit(out, &copied, &out->name, out->name_size);
    if (error != -EAGAIN)
        count(agent, out);
    return error;
}

static bool may_wait(const struct mfd_notification *call, const struct mfd_trial *trial)
{
    return trial->wake != MFD_WAKE_TIMEOUT && (flags_of(call) & MSG_DONTWAIT) == 0 &&
           !mfd_socket_is_nonblocking(trial->fd);
}

/* @trial: progress is how many messages were sent */
static bool send_some(struct mfd_agent *agent, struct outgoing *out, struct mfd_trial *trial)
{
    const struct mfd_notification *call = out->call;
    const uint32_t end = trial->progress + MFD_MESSAGES_TURN;
    int result = trial->wake == MFD_WAKE_READY ? 0 : -EAGAIN;

    while (result >= 0 && trial->progress < n_messages(call) && trial->progress < end) {
        result = send_one(agent, out, trial->progress);
        if (result < 0 || call->call.kind != MFD_CALL_SENDMMSG)
            break;
        result = mfd_message_set_length(
            call, mfd_message_at(call, call->call.args[1], trial->progress), (uint32_t)result);
        if (result == 0)
            trial->progress++;
    }
    trial->again = result >= 0 && trial->progress == end && end < n_messages(call);
    trial->result = trial->progress > 0 ? (int)trial->progress : result;
    if (trial->wake == MFD_WAKE_SIGNAL)
        return trial->progress > 0;
    return !((result == -EAGAIN || trial->again) && may_wait(call, trial));
}

static bool try_send(struct mfd_agent *agent, const struct mfd_notification *call,
                     struct mfd_trial *trial)
{
    struct outgoing out = {.call = call, .fd = trial->fd};

    (void)mfd_socket_option(trial->fd, SOL_SOCKET, SO_DOMAIN, &out.domain);
    return send_some(agent, &out, trial);
}

/* Is there anything in these messages that the kernel should not be left alone with? If not, they pass. */
static bool concerns_us(struct mfd_agent *agent, struct outgoing *out)
{
    const struct mfd_notification *call = out->call;
    uint32_t i;

    if (is_strict(agent))
        return true;
    for (i = 0; i < n_messages(call); i++) {
        if (read_and_decide(agent, out, i) < 0)
            break; /* the kernel sends what is before it, and has the errno */
        if (out->match.verdict != MFD_PASS) {
            out->is_read = i == 0; /* it is the first that is sent */
            return true;
        }
    }
    agent->stats->passed += i;
    return false;
}

/* It is no UDP socket. Through socketcall(2) a strict service could change the flags still: then it has the
 * answer of a kernel without that call. */
static void leave_to_kernel(struct mfd_agent *agent, const struct mfd_notification *call)
{
    if (is_strict(agent) && call->call.in_memory)
        mfd_answer(agent, call, -ENOSYS);
    else
        mfd_answer_continue(agent, call);
}

static void open_fast(struct mfd_agent *agent, const struct mfd_notification *call)
{
    struct mfd_attempt attempt = {
        .call = *call, .rule = MFD_ANY, .dontwait = (flags_of(call) & MSG_DONTWAIT) != 0};
    struct mfd_message message;

    if (is_strict(agent) || (agent->flags & MFD_SETUP_STANDINS) != 0) {
        mfd_answer(agent, call, -EOPNOTSUPP); /* as the filter says where it can see the flags */
        return;
    }
    if (read_message(call, 0, &message) < 0 ||
        mfd_message_name(call, &message, &attempt.sockaddr) < 0 ||
        mfd_address_parse(&attempt.sockaddr, message.name_size, &attempt.asked) < 0) {
        mfd_answer_continue(agent, call);
        return;
    }
    attempt.length = message.name_size;
    mfd_connect_decide(agent, &attempt);
}

static void send_in_place(struct mfd_agent *agent, struct outgoing *out)
{
    const struct mfd_notification *call = out->call;
    struct mfd_trial trial = {.fd = out->fd};
    int fd = out->fd;

    if (!send_some(agent, out, &trial)) {
        const struct mfd_wait_plan plan = {
            .proceed = try_send,
            .events = EPOLLOUT,
            .timeout_ns = mfd_socket_timeout_ns(fd, SO_SNDTIMEO),
        };

        if (mfd_wait_for(agent, call, fd, &plan, trial.progress) == 0)
            return;
        if (trial.progress == 0)
            trial.result = -ENOBUFS; /* too many wait; send(2) has the word */
    }
    mfd_close_at(&fd); /* UDP does not linger */
    mfd_answer(agent, call, trial.result);
}

/* mfd_send_handle - answer sendto(), sendmsg(), sendmmsg() */
void mfd_send_handle(struct mfd_agent *agent, const struct mfd_notification *call)
{
    struct mfd_socket socket = {.fd = -1};
    struct outgoing out = {.call = call};
    int error = -ENOENT;

    if (call->pid != 0)
        error = mfd_socket_take_up(agent, call->pid, (int)call->call.args[0], &socket);
    if (error < 0)
        mfd_account_unseen(agent, call, error, NULL);
    out.domain = socket.domain;
    if (error == 0 && socket.protocol == IPPROTO_UDP && concerns_us(agent, &out)) {
        out.fd = mfd_take_fd(&socket.fd);
        send_in_place(agent, &out);
        return;
    }
    mfd_release_at(&socket.fd);
    if (error < 0 && error != -EBADF && is_strict(agent))
        mfd_answer(agent, call, -EACCES); /* it cannot be looked at */
    else if (error == 0 && socket.protocol == IPPROTO_TCP && (flags_of(call) & MSG_FASTOPEN) != 0)
        open_fast(agent, call);
    else
        leave_to_kernel(agent, call);
}
