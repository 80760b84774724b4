/* Listening sockets: opened, found, closed, and made to listen again after a program shut one down. */
#include "agents.h"

static struct mfd_listening_sockets all;
static const struct mfd_netns netns; /* our own */

static int open_on(const char *ip, uint16_t port, uint32_t flags, uint32_t *ret_index)
{
    struct mfd_listen request = {
        .address = address_of(ip, port), .backlog = 8, .flags = (uint16_t)flags};

    return mfd_listening_open(&all, &netns, &request, ret_index);
}

static uint16_t port_of(int fd, struct mfd_address *ret_address)
{
    union mfd_sockaddr sockaddr;
    socklen_t length = sizeof(sockaddr);

    NEED(getsockname(fd, &sockaddr.any, &length) == 0);
    NEED(mfd_address_parse(&sockaddr, length, ret_address) == 0);
    return ret_address->port;
}

static int option_of(int fd, int level, int name)
{
    int value = -1;

    CHECK_EQ(mfd_socket_option(fd, level, name, &value), 0);
    return value;
}

static void an_opened_socket_listens(void)
{
    struct mfd_address address;
    uint32_t index = 77;

    CHECK_EQ(open_on("127.0.0.1", 0, 0, &index), 0);
    CHECK_EQ(index, 0);
    CHECK_EQ(option_of(all.sockets[0].fd, SOL_SOCKET, SO_ACCEPTCONN), 1);
    CHECK(fcntl(all.sockets[0].fd, F_GETFD) == FD_CLOEXEC);
    CHECK_EQ(all.sockets[0].domain, AF_INET);
    CHECK(port_of(all.sockets[0].fd, &address) > 0);
    CHECK_EQ(open_on("127.0.0.1", address.port, 0, &index), -EADDRINUSE);
    CHECK_EQ(index, 0);
    CHECK_EQ(all.n, 1);
}

static void a_mapped_address_is_opened_on_an_ipv6_socket(void)
{
    struct mfd_address address;
    uint32_t index = 0;

    if (open_on("127.0.0.1", 0, MFD_LISTEN_MAPPED, &index) < 0) {
        check_skip("v4-mapped sockets");
        return;
    }
    CHECK_EQ(all.sockets[index].domain, AF_INET6);
    CHECK_EQ(option_of(all.sockets[index].fd, SOL_SOCKET, SO_DOMAIN), AF_INET6);
    (void)port_of(all.sockets[index].fd, &address);
    CHECK_EQ(address.family, AF_INET);
    CHECK_EQ(mfd_listening_close(&all, index), 0);
}

static void addresses_that_cannot_be_are_refused(void)
{
    unsigned before = count_open_fds();
    uint32_t index = 77;

    CHECK_EQ(open_on("", 0, 0, &index), -EAFNOSUPPORT);
    CHECK_EQ(open_on("192.0.2.1", 80, 0, &index), -EADDRNOTAVAIL);
    CHECK_EQ(index, 77);
    CHECK_EQ(count_open_fds(), before);
}

static void a_socket_is_found_by_any_duplicate(void)
{
    MFD_CLOSE int duplicate = dup(all.sockets[0].fd);
    MFD_CLOSE int other = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    CHECK_EQ(mfd_listening_find(&all, duplicate), 0);
    CHECK_EQ(mfd_listening_find(&all, all.sockets[0].fd), 0);
    CHECK_EQ(mfd_listening_find(&all, other), -ENOENT);
    CHECK_EQ(mfd_listening_find(&all, -1), -ENOENT);
}

static void closing_frees_the_index_for_the_next(void)
{
    struct mfd_address address;
    uint32_t indices[3];
    uint32_t again;
    uint16_t port;
    MFD_CLOSE int duplicate = -1;
    int fd;

    for (unsigned i = 0; i < 3; i++)
        CHECK_EQ(open_on("127.0.0.1", 0, 0, &indices[i]), 0);
    fd = all.sockets[indices[1]].fd;
    port = port_of(fd, &address);
    duplicate = dup(fd);
    CHECK_EQ(mfd_listening_close(&all, indices[1]), 0);
    CHECK(!is_open(fd));
    CHECK_EQ(mfd_listening_find(&all, duplicate), -ENOENT);
    CHECK_EQ(option_of(duplicate, SOL_SOCKET, SO_ACCEPTCONN), 1); /* a daemon keeps its own */
    CHECK_EQ(mfd_listening_close(&all, indices[1]), -ENOENT);
    CHECK_EQ(mfd_listening_close(&all, MFD_LISTEN_MAX), -ENOENT);
    CHECK_EQ(mfd_listening_close(&all, MFD_ANY), -ENOENT);
    mfd_close_at(&duplicate);
    CHECK_EQ(open_on("127.0.0.1", port, 0, &again), 0);
    CHECK_EQ(again, indices[1]);
    for (unsigned i = 0; i < 3; i++)
        CHECK_EQ(mfd_listening_close(&all, indices[i]), 0);
}

static void there_is_room_for_so_many_and_no_more(void)
{
    unsigned before = count_open_fds();
    uint32_t index;
    unsigned n = 0;

    while (open_on("127.0.0.1", 0, 0, &index) == 0)
        n++;
    CHECK_EQ(n, MFD_LISTEN_MAX - 1); /* the first test's is still open */
    CHECK_EQ(open_on("127.0.0.1", 0, 0, &index), -ENOSPC);
    for (uint32_t i = 1; i < MFD_LISTEN_MAX; i++)
        CHECK_EQ(mfd_listening_close(&all, i), 0);
    CHECK_EQ(count_open_fds(), before);
}

static void a_socket_that_was_shut_down_listens_again(void)
{
    int supervisor_fd = open_agent();
    struct mfd_address before;
    struct mfd_address after;
    union report report;
    uint32_t index;
    uint16_t port = port_of(all.sockets[0].fd, &before);
    int fd;

    /* asked for by number: a port that the kernel chose would be given up with the queue */
    CHECK_EQ(mfd_listening_close(&all, 0), 0);
    NEED(open_on("127.0.0.1", port, 0, &index) == 0 && index == 0);
    agent.listening = all;
    fd = agent.listening.sockets[0].fd;
    mfd_listening_rearm_all(&agent);
    CHECK_EQ(next_report(supervisor_fd, &report), 0); /* nothing to do, nothing to say */
    NEED(shutdown(fd, SHUT_RDWR) == 0);
    CHECK_EQ(option_of(fd, SOL_SOCKET, SO_ACCEPTCONN), 0);
    mfd_listening_rearm_all(&agent);
    CHECK_EQ(option_of(fd, SOL_SOCKET, SO_ACCEPTCONN), 1);
    (void)port_of(fd, &after);
    CHECK(memcmp(&before, &after, sizeof(before)) == 0);
    CHECK_EQ(next_report(supervisor_fd, &report), MFD_MSG_NOTICE);
    CHECK_EQ(report.notice.notice, MFD_NOTICE_REARMED);
    CHECK_EQ(report.notice.index, 0);
    close_agent(supervisor_fd);
}

int main(void)
{
    an_opened_socket_listens();
    a_mapped_address_is_opened_on_an_ipv6_socket();
    addresses_that_cannot_be_are_refused();
    a_socket_is_found_by_any_duplicate();
    closing_frees_the_index_for_the_next();
    there_is_room_for_so_many_and_no_more();
    a_socket_that_was_shut_down_listens_again();
    return check_result();
}
