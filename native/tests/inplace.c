/* What the kernel says to a question about a TCP socket's earlier attempt, in each state; the question itself
 * never connects. The answers are what inplace.c stands on. */
#include <poll.h>

#include "check.h"

struct kind {
    int domain;
    int protocol;
    const char *name;
};

static const struct kind kinds[] = {
    {AF_INET, 0, "TCP over IPv4"},
    {AF_INET6, 0, "TCP over IPv6"},
    {AF_INET, 262 /* IPPROTO_MPTCP */, "MPTCP over IPv4"},
    {AF_INET6, 262, "MPTCP over IPv6"},
};

static int new_socket(const struct kind *kind)
{
    return socket(kind->domain, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, kind->protocol);
}

/* Return: errno. */
static int connect_to(const struct kind *kind, int fd, uint16_t port)
{
    struct mfd_address address = address_of(kind->domain == AF_INET ? "127.0.0.1" : "::1", port);
    union mfd_sockaddr sockaddr;
    socklen_t length;

    NEED(mfd_address_format(&address, kind->domain, &sockaddr, &length) == 0);
    return connect(fd, &sockaddr.any, length) < 0 ? errno : 0;
}

/* One that listens, with room for a single connection. @ret_port: where. */
static int listen_narrowly(const struct kind *kind, uint16_t *ret_port)
{
    struct mfd_address address = address_of(kind->domain == AF_INET ? "127.0.0.1" : "::1", 0);
    union mfd_sockaddr sockaddr;
    socklen_t length;
    int fd = new_socket(kind);

    NEED(mfd_address_format(&address, kind->domain, &sockaddr, &length) == 0);
    NEED(bind(fd, &sockaddr.any, length) == 0 && listen(fd, 0) == 0);
    length = sizeof(sockaddr);
    NEED(getsockname(fd, &sockaddr.any, &length) == 0);
    NEED(mfd_address_parse(&sockaddr, length, &address) == 0);
    *ret_port = address.port;
    return fd;
}

static void wait_for(int fd, short events)
{
    struct pollfd polled = {.fd = fd, .events = events};

    NEED(poll(&polled, 1, -1) == 1);
}

static void each_state_has_its_answer(const struct kind *kind)
{
    const struct sockaddr nobody = {.sa_family = AF_UNSPEC};
    uint16_t port;
    uint16_t dead_port;
    int listening = listen_narrowly(kind, &port);
    int dead = listen_narrowly(kind, &dead_port);
    int first = new_socket(kind);
    int waiting = new_socket(kind);

    (void)close(dead);
    CHECK_EQ(mfd_inplace_ask(first, kind->domain), EAFNOSUPPORT);
    CHECK(mfd_inplace_is_closed(first));
    CHECK_EQ(mfd_inplace_look(first), MFD_LOOK_FRESH);
    CHECK_EQ(connect_to(kind, first, dead_port), EINPROGRESS);
    wait_for(first, POLLOUT);
    CHECK(mfd_inplace_has_error(first));
    CHECK_EQ(mfd_inplace_look(first), MFD_LOOK_OVER);
    CHECK(mfd_inplace_is_closed(first));
    CHECK_EQ(mfd_inplace_ask(first, kind->domain), ECONNREFUSED);
    CHECK(mfd_inplace_is_closed(first));
    CHECK_EQ(mfd_inplace_look(first), MFD_LOOK_FRESH);
    CHECK_EQ(mfd_inplace_ask(first, kind->domain), EAFNOSUPPORT);

    CHECK_EQ(connect_to(kind, first, port), EINPROGRESS);
    wait_for(first, POLLOUT);
    CHECK(!mfd_inplace_is_closed(first));
    CHECK_EQ(mfd_inplace_look(first), MFD_LOOK_USED);
    CHECK_EQ(mfd_inplace_ask(first, kind->domain), 0);
    CHECK_EQ(mfd_inplace_look(first), MFD_LOOK_USED);
    CHECK_EQ(mfd_inplace_ask(first, kind->domain), EISCONN);

    CHECK_EQ(connect_to(kind, waiting, port), EINPROGRESS); /* the queue is full */
    CHECK(!mfd_inplace_is_closed(waiting));
    CHECK_EQ(mfd_inplace_look(waiting), MFD_LOOK_USED);
    CHECK_EQ(mfd_inplace_ask(waiting, kind->domain), EALREADY);
    CHECK_EQ(connect(waiting, &nobody, sizeof(nobody)), 0);
    CHECK_EQ(mfd_inplace_ask(waiting, kind->domain), EAFNOSUPPORT);
    CHECK_EQ(mfd_inplace_look(listening), MFD_LOOK_USED);
    CHECK_EQ(mfd_inplace_ask(listening, kind->domain), EISCONN);
    (void)close(first);
    (void)close(waiting);
    (void)close(listening);
}

/* SO_ERROR takes the error away, and not what has happened: a connect() is told of it, wherever it leads. One of MPTCP
 * may look fresh then; connect.c asks it all the same. */
static void an_error_that_was_taken_is_not_forgotten(const struct kind *kind)
{
    const struct sockaddr nobody = {.sa_family = AF_UNSPEC};
    uint16_t port;
    uint16_t dead_port;
    int listening = listen_narrowly(kind, &port);
    int dead = listen_narrowly(kind, &dead_port);
    int fd = new_socket(kind);
    int error = 0;

    (void)close(dead);
    CHECK_EQ(connect_to(kind, fd, dead_port), EINPROGRESS);
    wait_for(fd, POLLOUT);
    CHECK_EQ(mfd_socket_option(fd, SOL_SOCKET, SO_ERROR, &error), 0);
    CHECK_EQ(error, ECONNREFUSED);
    CHECK(kind->protocol != 0 || mfd_inplace_look(fd) == MFD_LOOK_OVER);
    CHECK_EQ(connect_to(kind, fd, port), ECONNABORTED);
    CHECK_EQ(mfd_inplace_look(fd), MFD_LOOK_FRESH);
    CHECK_EQ(connect_to(kind, fd, port), EINPROGRESS);
    wait_for(fd, POLLOUT);
    CHECK_EQ(connect(fd, &nobody, sizeof(nobody)), 0);
    CHECK(kind->protocol != 0 || mfd_inplace_look(fd) == MFD_LOOK_OVER); /* TCP leaves an error */
    CHECK_EQ(mfd_inplace_ask(fd, kind->domain), EAFNOSUPPORT);

    CHECK_EQ(shutdown(fd, SHUT_RD), -1); /* ENOTCONN, and it is shut down all the same */
    CHECK_EQ(mfd_inplace_look(fd), MFD_LOOK_OVER);
    CHECK_EQ(mfd_inplace_ask(fd, kind->domain), EAFNOSUPPORT);
    (void)close(fd);
    (void)close(listening);
}

static void the_mode_is_the_programs_again(void)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int flags = fcntl(fd, F_GETFL);
    struct mfd_mode mode = mfd_mode_enter(fd);

    CHECK((fcntl(fd, F_GETFL) & O_NONBLOCK) != 0);
    CHECK(mfd_mode_leave(&mode));
    CHECK_EQ(fcntl(fd, F_GETFL), flags);
    NEED(fcntl(fd, F_SETFL, flags | O_NONBLOCK) == 0);
    mode = mfd_mode_enter(fd);
    CHECK(!mfd_mode_leave(&mode));
    CHECK((fcntl(fd, F_GETFL) & O_NONBLOCK) != 0);
    (void)close(fd);
}

int main(void)
{
    for (size_t i = 0; i < MFD_COUNT(kinds); i++) {
        int fd = new_socket(&kinds[i]);

        check_about = kinds[i].name;
        if (fd < 0) {
            check_skip(kinds[i].name);
            continue;
        }
        (void)close(fd);
        each_state_has_its_answer(&kinds[i]);
        an_error_that_was_taken_is_not_forgotten(&kinds[i]);
    }
    check_about = "";
    the_mode_is_the_programs_again();
    return check_result();
}
