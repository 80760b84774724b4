/* connect.c - connect() is decided, and carried out in place
 *
 * Theory of operation: the address is copied once, and what is decided is decided on the copy. To
 * redirect, the agent connects the program's own open file, through a duplicate, to the endpoint
 * (inplace.c). Nothing changes identity, so epoll registrations, dups and options are as they were.
 *
 *   pass       CONTINUE; in a strict service connected in place to the copied address, so that no
 *              second reading of the program's memory decides anything; from another network namespace,
 *              where the address is reached from one (elsewhere.c)
 *   deny       the configured errno
 *   redirect   the first endpoint that does not refuse at once (candidates.c), before anything is answered;
 *              a unix socket takes the socket's place (standin.c), or is waited for (queue.c), and so does
 *              a socket of another network namespace (elsewhere.c)
 *   ask        asks.c
 *
 * A port that somebody in the service has forbidden himself (forbidden.c) is not redirected: CONTINUE has the
 * kernel judge, and in a strict service, where nobody connects himself, it is EACCES.
 *
 * A connect() on a socket that is connected, connecting, or has failed to, asks about that attempt;
 * nothing is decided then, and the kernel tells (take_up).
 *
 * Left to the kernel, because its errno is the faithful one: lengths that are no address, memory that
 * cannot be read, families other than the socket's, sockets that are not TCP. A strict service gets
 * the same errno from a connect() in place, or from here.
 *
 * Races: in a strict service one CONTINUE is left, for the names of unix sockets, which only the program can
 * resolve; README, limits.
 * Source: connect(2), tcp(7). */
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>

#include "meshfd.h"

static bool is_strict(const struct mfd_agent *agent)
{
    return (agent->flags & MFD_SETUP_STRICT) != 0;
}

static int fd_of(const struct mfd_notification *call)
{
    return (int)call->call.args[0];
}

/* May somebody in the service not connect there, by a rule that the kernel would not hold against the agent? */
static bool is_forbidden(const struct mfd_agent *agent, const struct mfd_attempt *attempt,
                         const struct mfd_socket *socket)
{
    return socket->protocol == IPPROTO_TCP && attempt->asked.family != 0 &&
           mfd_forbidden_connects(agent, attempt->asked.port);
}

/* For the one connect() that is the agent's. That of a socket of UDP never waits. */
static struct mfd_mode enter(const struct mfd_socket *socket)
{
    return socket->protocol == IPPROTO_UDP ? mfd_mode_none(socket->fd) : mfd_mode_enter(socket->fd);
}

/* --- as asked --------------------------------------------------------------------------------------------- */

/* What the kernel would do with this call. In a strict service it is done here, on the file that was
 * looked at and the address that was copied. Only names in the program's own view of files (a unix
 * socket's address, on a socket that is none of the internet's) are left to the kernel even then.
 * Takes the socket's fd over. */
static void as_asked(struct mfd_agent *agent, const struct mfd_attempt *attempt,
                     struct mfd_socket *socket)
{
    const bool internet =
        attempt->asked.family != 0 || socket->domain == AF_INET || socket->domain == AF_INET6;
    struct mfd_mode mode;
    int error;

    agent->stats->passed++;
    mfd_parked_keep(agent, socket->fd);
    if (!is_strict(agent) || !internet) {
        mfd_release_at(&socket->fd);
        mfd_answer_continue(agent, &attempt->call);
        return;
    }
    if (is_forbidden(agent, attempt, socket)) {
        mfd_release_at(&socket->fd);
        mfd_answer(agent, &attempt->call, -EACCES);
        return;
    }
    mode = enter(socket);
    error = connect(socket->fd, &attempt->sockaddr.any, attempt->length) < 0 ? errno : 0;
    mfd_inplace_answer(agent, &attempt->call, mfd_take_fd(&socket->fd), mfd_mode_leave(&mode),
                       error, error == EINPROGRESS);
}

/* The file cannot be looked at. */
static void out_of_reach(struct mfd_agent *agent, const struct mfd_attempt *attempt, int error)
{
    mfd_account_unseen(agent, &attempt->call, error, &attempt->asked);
    agent->stats->passed++;
    if (is_strict(agent))
        mfd_answer(agent, &attempt->call, error == -EBADF ? -EBADF : -EACCES);
    else
        mfd_answer_continue(agent, &attempt->call);
}

/* Return: whether the file was taken up; the call is answered if not. */
static bool reach(struct mfd_agent *agent, const struct mfd_attempt *attempt,
                  struct mfd_socket *ret)
{
    int error = mfd_socket_take_up(agent, attempt->call.pid, fd_of(&attempt->call), ret);

    if (error < 0) {
        out_of_reach(agent, attempt, error);
        return false;
    }
    if (!mfd_notify_is_alive(&attempt->call)) {
        mfd_release_at(&ret->fd);
        agent->stats->vanished++;
        return false;
    }
    return true;
}

/* A socket that was led to this address when it asked for another is told the truth from now on (names.c). */
static void end_name(struct mfd_agent *agent, const struct mfd_attempt *attempt)
{
    MFD_RELEASE int fd = -1;
    struct tcp_info info = {.tcpi_state = TCP_CLOSE};
    socklen_t size = sizeof(info);

    if (mfd_target_open_fd(attempt->call.pid, fd_of(&attempt->call), &fd) < 0)
        return;
    (void)getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size); /* not of a UDP socket */
    if (info.tcpi_state == TCP_CLOSE) /* else it stays where it is connected */
        mfd_names_end(&agent->names, mfd_socket_cookie(fd), &attempt->asked);
}

/* Where the address is in one namespace and the socket may be in another. */
static bool may_move(const struct mfd_agent *agent, const struct mfd_attempt *attempt)
{
    return mfd_elsewhere_may_be(agent) && attempt->asked.family != 0;
}

static void pass_here(struct mfd_agent *agent, const struct mfd_attempt *attempt)
{
    const struct mfd_notification *call = &attempt->call;
    struct mfd_socket socket;

    if (!is_strict(agent)) {
        mfd_parked_settle(agent, call->pid, fd_of(call));
        mfd_socket_let_go(agent, call->pid, fd_of(call));
        agent->stats->passed++;
        mfd_answer_continue(agent, call);
    } else if (reach(agent, attempt, &socket)) {
        as_asked(agent, attempt, &socket);
    }
}

/* --- deny, redirect ------------------------------------------------------------------------------------- */

/* An IPv6 socket of UDP takes IPv4 addresses, too (net/ipv6/datagram.c, __ip6_datagram_connect). */
static bool has_family_of(const struct mfd_socket *socket, const struct mfd_attempt *attempt)
{
    return (socket->protocol != 0 && socket->domain == attempt->sockaddr.any.sa_family) ||
           (socket->protocol == IPPROTO_UDP && socket->domain == AF_INET6);
}

/* A connect() that asks about an earlier attempt of this TCP socket, or that can become nothing else, is answered.
 * Return: whether it was. */
static bool tell(struct mfd_agent *agent, const struct mfd_attempt *attempt,
                 struct mfd_socket *socket)
{
    enum mfd_look look = mfd_inplace_look(socket->fd);
    struct mfd_mode mode;
    bool blocking;
    int error;

    if (look == MFD_LOOK_FRESH && !mfd_socket_is_multipath(socket->fd))
        return false;
    if (look == MFD_LOOK_USED && !is_strict(agent)) {
        as_asked(agent, attempt, socket); /* O_NONBLOCK would be felt by whoever reads or writes */
        return true;
    }
    mode = mfd_mode_enter(socket->fd);
    error = mfd_inplace_ask(socket->fd, socket->domain);
    blocking = mfd_mode_leave(&mode);
    if (error == EAFNOSUPPORT)
        return false;
    agent->stats->passed++;
    mfd_parked_keep(agent, socket->fd);
    mfd_inplace_answer(agent, &attempt->call, mfd_take_fd(&socket->fd), blocking, error, false);
    return true;
}

/* Take the socket up for a decision. What the kernel would say before it looks at the address comes
 * first: a socket of another protocol, an address of another family; a socket that is connected or
 * connecting, or has failed to connect, whose connect() is a question about that (also when a signal has
 * repeated it). One of UDP may be connected at any time.
 * Return: whether to decide; the call is answered if not. */
static bool take_up(struct mfd_agent *agent, const struct mfd_attempt *attempt,
                    struct mfd_socket *ret)
{
    if (!reach(agent, attempt, ret))
        return false;
    if (!has_family_of(ret, attempt)) {
        as_asked(agent, attempt, ret);
        return false;
    }
    if (attempt->call.call.kind != MFD_CALL_CONNECT && !mfd_inplace_is_closed(ret->fd)) {
        as_asked(agent, attempt, ret); /* a send that found a connection, or an attempt */
        return false;
    }
    return ret->protocol == IPPROTO_UDP || ret->leased || !tell(agent, attempt, ret);
}

/* As asked, but from the network namespace that the address is reached from. */
static void move(struct mfd_agent *agent, const struct mfd_attempt *attempt,
                 struct mfd_socket *socket, uint32_t netns)
{
    const bool blocking = socket->protocol != IPPROTO_UDP && !mfd_socket_is_nonblocking(socket->fd);
    int new_fd = -1;
    int error = mfd_elsewhere_open(agent, attempt, socket, netns, &new_fd);

    agent->stats->passed++;
    if (error == 0 && connect(new_fd, &attempt->sockaddr.any, attempt->length) < 0)
        error = -errno;
    if (error < 0 && error != -EINPROGRESS) {
        mfd_close_at(&new_fd);
        mfd_parked_keep(agent, socket->fd);
    } else {
        int replaced = mfd_elsewhere_replace(agent, attempt, socket, new_fd);

        error = replaced < 0 ? replaced : error;
    }
    mfd_inplace_answer(agent, &attempt->call, mfd_take_fd(&socket->fd), blocking, -error,
                       error == -EINPROGRESS);
}

static void pass(struct mfd_agent *agent, const struct mfd_attempt *attempt)
{
    uint32_t netns = mfd_elsewhere_of_address(agent, &attempt->asked);
    struct mfd_socket socket;

    if (mfd_names_was_given(&agent->names, &attempt->asked))
        end_name(agent, attempt);
    if (!may_move(agent, attempt)) {
        pass_here(agent, attempt);
        return;
    }
    if (!take_up(agent, attempt, &socket))
        return;
    if (socket.netns == netns || socket.netns == MFD_ANY || is_forbidden(agent, attempt, &socket))
        as_asked(agent, attempt, &socket);
    else
        move(agent, attempt, &socket, netns);
}

/* It fails with this errno. */
static void deny(struct mfd_agent *agent, const struct mfd_attempt *attempt,
                 struct mfd_socket *socket, int error)
{
    uint64_t nanoseconds;

    mfd_parked_keep(agent, socket->fd);
    mfd_release_at(&socket->fd);
    agent->stats->denied++;
    mfd_account_rule(agent, attempt->rule);
    nanoseconds = mfd_account_time(agent, &attempt->call);
    mfd_answer(agent, &attempt->call, -error);
    mfd_account_denied(agent, attempt, error, nanoseconds);
}

/* Where somebody needs to know later that this socket asked for another address. */
static void remember(struct mfd_agent *agent, const struct mfd_attempt *attempt,
                     const struct mfd_socket *socket, const struct mfd_address *given)
{
    const bool is_udp = socket->protocol == IPPROTO_UDP;
    struct mfd_name *name;

    if (!is_udp && (agent->flags & MFD_SETUP_TRANSPARENT) == 0)
        return;
    name = mfd_names_put(&agent->names, mfd_socket_cookie(socket->fd), &attempt->asked, given);
    if (is_udp)
        mfd_names_pin(name, attempt->call.pid, fd_of(&attempt->call));
}

/* Return: whether the call waits now, for the one endpoint that might have served. */
static bool queue(struct mfd_agent *agent, const struct mfd_attempt *attempt,
                  struct mfd_socket *socket, const struct mfd_candidates *candidates,
                  const struct mfd_outcome *outcome)
{
    if (!mfd_candidates_is_refusal(outcome->error) || outcome->full < 0 ||
        !mfd_queue_wait(agent, attempt, socket->fd, candidates, outcome->full))
        return false;
    mfd_release_at(&socket->fd);
    return true;
}

/* What was connected takes the socket's place.
 * Return: whether it is a unix socket, which has nothing to wait for. */
static bool replace(struct mfd_agent *agent, const struct mfd_attempt *attempt,
                    struct mfd_socket *socket, const struct mfd_candidates *candidates,
                    struct mfd_outcome *outcome, bool blocking)
{
    int error;

    if (candidates->endpoints[outcome->used]->address.family == AF_UNIX) {
        outcome->error = -mfd_standin_replace(agent, attempt, mfd_take_fd(&socket->fd),
                                              outcome->new_fd, blocking);
        return true;
    }
    error = mfd_elsewhere_replace(agent, attempt, socket, outcome->new_fd);
    if (error < 0)
        outcome->error = -error;
    return false;
}

/* It goes to the first of these endpoints that does not refuse at once. */
static void redirect(struct mfd_agent *agent, const struct mfd_attempt *attempt,
                     struct mfd_socket *socket, const struct mfd_candidates *candidates)
{
    const struct mfd_notification *call = &attempt->call;
    struct mfd_mode mode = enter(socket);
    struct mfd_outcome outcome = mfd_candidates_try(agent, attempt, socket, candidates);
    bool blocking = mfd_mode_leave(&mode) && !attempt->dontwait;
    bool is_standin = false;
    uint64_t nanoseconds;

    if (blocking && queue(agent, attempt, socket, candidates, &outcome))
        return;
    if (outcome.new_fd >= 0)
        is_standin = replace(agent, attempt, socket, candidates, &outcome, blocking);
    else
        mfd_parked_keep(agent, socket->fd);
    if (!is_standin && outcome.used >= 0 && (outcome.error == 0 || outcome.error == EINPROGRESS))
        remember(agent, attempt, socket, &candidates->endpoints[outcome.used]->address);
    mfd_account_rule(agent, attempt->rule);
    mfd_account_outcome(agent, candidates, &outcome);
    nanoseconds = mfd_account_time(agent, call);
    if (is_standin)
        mfd_answer(agent, call, -outcome.error);
    else
        mfd_inplace_answer(agent, call, mfd_take_fd(&socket->fd), blocking, outcome.error, true);
    mfd_account_redirected(agent, attempt, candidates, &outcome, nanoseconds);
}

/* --- decide ------------------------------------------------------------------------------------------------ */

/* The address that the target's socket is bound to; the wildcard when it is not, or out of reach. */
static void local_address(const struct mfd_notification *call, struct mfd_address *ret)
{
    union mfd_sockaddr sockaddr;
    socklen_t length = sizeof(sockaddr);
    MFD_RELEASE int fd = -1;

    if (mfd_target_open_fd(call->pid, fd_of(call), &fd) < 0 ||
        getsockname(fd, &sockaddr.any, &length) < 0 ||
        mfd_address_parse(&sockaddr, length, ret) < 0)
        *ret = (struct mfd_address){0};
}

/* Where a connect() to the wildcard goes: on IPv4 to the address that the socket is bound to, else to
 * this host's own (net/ipv4/route.c, ip_route_output_key_hash_rcu; net/ipv6/tcp_ipv6.c,
 * tcp_v6_connect). In a strict service it is also what the socket is then connected to, so that a socket that is
 * put at the fd meanwhile is not taken elsewhere. */
static void resolve_wildcard(struct mfd_agent *agent, struct mfd_attempt *attempt,
                             struct mfd_address *address)
{
    const int domain = attempt->sockaddr.any.sa_family;
    struct mfd_address local;
    socklen_t ignored; /* the length stays the program's: the kernel judges it */
    bool mapped;

    local_address(&attempt->call, &local);
    mapped = local.family == AF_INET;
    if (address->family == AF_INET && mapped && !mfd_address_is_wildcard(&local)) {
        memcpy(address->bytes, local.bytes, sizeof(address->bytes));
    } else if (address->family == AF_INET || mapped) {
        address->family = AF_INET;
        memcpy(address->bytes, (const uint8_t[16]){127, 0, 0, 1}, sizeof(address->bytes));
    } else {
        address->bytes[15] = 1;
    }
    if (is_strict(agent))
        (void)mfd_address_format(address, domain, &attempt->sockaddr, &ignored);
}

/* Takes the socket over. */
static void carry_out(struct mfd_agent *agent, const struct mfd_attempt *attempt,
                      struct mfd_socket *socket, const struct mfd_decision *decision)
{
    if (decision->verdict == MFD_DENY) {
        deny(agent, attempt, socket, decision->error);
        return;
    }
    if (decision->verdict == MFD_REDIRECT && !is_forbidden(agent, attempt, socket)) {
        redirect(agent, attempt, socket, &decision->candidates);
        return;
    }
    if (decision->verdict == MFD_REDIRECT)
        mfd_control_notice(agent, MFD_NOTICE_FORBIDDEN, attempt->call.pid, 0, &attempt->asked,
                           MFD_ANY);
    as_asked(agent, attempt, socket);
}

/* mfd_connect_resume - a verdict came for a call that waited for one */
void mfd_connect_resume(struct mfd_agent *agent, const struct mfd_attempt *attempt,
                        const struct mfd_decision *decision)
{
    struct mfd_socket socket;

    if (decision->verdict == MFD_PASS)
        pass(agent, attempt);
    else if (take_up(agent, attempt, &socket))
        carry_out(agent, attempt, &socket, decision);
}

/* Return: whether the call waits for a verdict now; @ret_decision: what to do if it does not. */
static bool ask(struct mfd_agent *agent, const struct mfd_attempt *attempt,
                struct mfd_socket *socket, struct mfd_decision *ret_decision)
{
    if (attempt->call.call.kind != MFD_CALL_CONNECT) {
        /* TCP Fast Open: without it, the program comes back with a connect() */
        *ret_decision = (struct mfd_decision){.verdict = MFD_DENY, .error = EOPNOTSUPP};
        return false;
    }
    if (mfd_asks_put(agent, attempt, mfd_socket_cookie(socket->fd)) == 0) {
        mfd_release_at(&socket->fd);
        return true;
    }
    mfd_asks_default(agent, ret_decision);
    return false;
}

/* mfd_connect_decide - the address was read: decide, carry out, answer */
void mfd_connect_decide(struct mfd_agent *agent, struct mfd_attempt *attempt)
{
    struct mfd_address address = attempt->asked;
    struct mfd_decision decision = {.verdict = MFD_PASS};
    struct mfd_match match;
    struct mfd_match udp_match;
    struct mfd_socket socket;

    agent->stats->connects++;
    if (mfd_address_is_wildcard(&address))
        resolve_wildcard(agent, attempt, &address);
    attempt->meant = address;
    mfd_routes_find(agent->table, IPPROTO_TCP, &address, &match);
    mfd_routes_find((agent->flags & MFD_SETUP_UDP) != 0 ? agent->table : NULL, IPPROTO_UDP,
                    &address, &udp_match);
    if (match.verdict == MFD_PASS && udp_match.verdict == MFD_PASS) {
        pass(agent, attempt);
        return;
    }
    if (!take_up(agent, attempt, &socket))
        return;
    if (socket.protocol == IPPROTO_UDP)
        match = udp_match;
    attempt->rule = match.rule;
    if (match.verdict == MFD_REDIRECT && attempt->call.call.kind != MFD_CALL_CONNECT &&
        mfd_socket_is_multipath(socket.fd)) { /* on an attempt of ours it would fail */
        match.verdict = MFD_DENY;
        match.argument = EOPNOTSUPP; /* as before Linux 6.2 */
    }
    if (match.verdict == MFD_ASK && ask(agent, attempt, &socket, &decision))
        return;
    if (match.verdict == MFD_REDIRECT)
        mfd_balance_choose(agent, match.argument, &decision.candidates);
    if (match.verdict == MFD_DENY)
        decision.error = (int)match.argument;
    if (match.verdict != MFD_ASK)
        decision.verdict = match.verdict;
    carry_out(agent, attempt, &socket, &decision);
}

/* The kernel looks at the fd before anything else. */
static bool is_open(const struct mfd_notification *call)
{
    MFD_RELEASE int fd = -1;

    return mfd_target_open_fd(call->pid, fd_of(call), &fd) != -EBADF;
}

/* An address that could not be copied. The kernel tells the program why; in a strict service it must
 * not be given the chance to read an address that has appeared since. */
static void unread(struct mfd_agent *agent, const struct mfd_attempt *attempt, int error)
{
    const struct mfd_notification *call = &attempt->call;

    mfd_account_unseen(agent, call, error, NULL);
    mfd_socket_let_go(agent, call->pid, fd_of(call));
    if (!is_strict(agent))
        mfd_answer_continue(agent, call);
    else if (error == -EPERM)
        mfd_answer(agent, call, -EACCES);
    else
        mfd_answer(agent, call, is_open(call) ? error : -EBADF);
}

/* mfd_connect_handle - answer connect() */
void mfd_connect_handle(struct mfd_agent *agent, const struct mfd_notification *call)
{
    struct mfd_attempt attempt = {.call = *call};
    int length = (int)call->call.args[2];
    int error;

    if (call->pid == 0) {
        mfd_account_unseen(agent, call, -ENOENT, NULL);
        if (is_strict(agent))
            mfd_answer(agent, call, -EACCES);
        else
            mfd_answer_continue(agent, call);
        return;
    }
    /* EINVAL, whatever the memory holds */
    if (length < (int)sizeof(sa_family_t) || length > MFD_SOCKADDR_MAX) {
        mfd_socket_let_go(agent, call->pid, fd_of(call));
        if (is_strict(agent) && call->call.in_memory) /* it could be another one by then */
            mfd_answer(agent, call, is_open(call) ? -EINVAL : -EBADF);
        else
            mfd_answer_continue(agent, call);
        return;
    }
    if (mfd_standin_connect(agent, call))
        return;
    attempt.length = (socklen_t)length;
    error = mfd_target_read(call->pid, call->call.args[1], attempt.sockaddr.bytes, attempt.length);
    if (error < 0) {
        unread(agent, &attempt, error);
        return;
    }
    if (mfd_address_parse(&attempt.sockaddr, attempt.length, &attempt.asked) < 0) {
        pass(agent, &attempt);
        return;
    }
    mfd_connect_decide(agent, &attempt);
}
