/* Socket options: each that the table names really arrives at the other socket. */
#include "../options.c"

#include "check.h"

/* A value that is nobody's default, for every option of the table. */
static const struct value {
    int level;
    int name;
    int domain; /* of the sockets; 0: both */
    int size;   /* of bytes, or 0: number is it */
    int number;
    const void *bytes;
} values[] = {
    {SOL_SOCKET, SO_KEEPALIVE, 0, 0, 1, NULL},
    {SOL_SOCKET, SO_LINGER, 0, sizeof(struct linger), 0, &(struct linger){1, 7}},
    {SOL_SOCKET, SO_OOBINLINE, 0, 0, 1, NULL},
    {SOL_SOCKET, SO_SNDBUF, 0, 0, 50000, NULL},
    {SOL_SOCKET, SO_RCVBUF, 0, 0, 60000, NULL},
    {SOL_SOCKET, SO_RCVLOWAT, 0, 0, 100, NULL},
    {SOL_SOCKET, SO_RCVTIMEO, 0, sizeof(struct timeval), 0, &(struct timeval){3, 500000}},
    {SOL_SOCKET, SO_SNDTIMEO, 0, sizeof(struct timeval), 0, &(struct timeval){4, 0}},
    {SOL_SOCKET, SO_PRIORITY, 0, 0, 5, NULL},
    {SOL_SOCKET, SO_MARK, 0, 0, 77, NULL},
    {SOL_SOCKET, SO_BINDTODEVICE, 0, 3, 0, "lo"},
    {SOL_SOCKET, SO_INCOMING_CPU, 0, 0, 0, NULL},
    {SOL_SOCKET, SO_BUSY_POLL, 0, 0, 50, NULL},
    {SOL_SOCKET, SO_TIMESTAMP, 0, 0, 1, NULL},
    {SOL_SOCKET, SO_DONTROUTE, 0, 0, 1, NULL},
    {SOL_SOCKET, SO_ZEROCOPY, 0, 0, 1, NULL},
    {IPPROTO_IP, IP_TOS, 0, 0, 0x20, NULL},
    {IPPROTO_IP, IP_TTL, 0, 0, 33, NULL},
    {IPPROTO_IP, IP_MTU_DISCOVER, 0, 0, IP_PMTUDISC_DONT, NULL},
    {IPPROTO_IP, IP_TRANSPARENT, 0, 0, 1, NULL},
    {IPPROTO_IP, IP_FREEBIND, 0, 0, 1, NULL},
    {IPPROTO_IPV6, IPV6_TCLASS, AF_INET6, 0, 0x20, NULL},
    {IPPROTO_IPV6, IPV6_UNICAST_HOPS, AF_INET6, 0, 33, NULL},
    {IPPROTO_TCP, TCP_NODELAY, 0, 0, 1, NULL},
    {IPPROTO_TCP, TCP_CORK, 0, 0, 1, NULL},
    {IPPROTO_TCP, TCP_KEEPIDLE, 0, 0, 111, NULL},
    {IPPROTO_TCP, TCP_KEEPINTVL, 0, 0, 11, NULL},
    {IPPROTO_TCP, TCP_KEEPCNT, 0, 0, 4, NULL},
    {IPPROTO_TCP, TCP_SYNCNT, 0, 0, 2, NULL},
    {IPPROTO_TCP, TCP_LINGER2, 0, 0, 13, NULL},
    {IPPROTO_TCP, TCP_DEFER_ACCEPT, 0, 0, 3, NULL},
    {IPPROTO_TCP, TCP_WINDOW_CLAMP, 0, 0, 40000, NULL},
    {IPPROTO_TCP, TCP_USER_TIMEOUT, 0, 0, 9000, NULL},
    {IPPROTO_TCP, TCP_FASTOPEN, 0, 0, 16, NULL},
    {IPPROTO_TCP, TCP_NOTSENT_LOWAT, 0, 0, 16384, NULL},
    {IPPROTO_TCP, TCP_CONGESTION, 0, 5, 0, "reno"},
    {IPPROTO_TCP, TCP_QUICKACK, 0, 0, 0, NULL},
};

static const struct value *value_for(const struct option *option)
{
    for (size_t i = 0; i < MFD_COUNT(values); i++)
        if (values[i].level == option->level && values[i].name == option->name)
            return &values[i];
    return NULL;
}

static int set(int fd, const struct value *value)
{
    if (value->size > 0)
        return setsockopt(fd, value->level, value->name, value->bytes, (socklen_t)value->size);
    return setsockopt(fd, value->level, value->name, &value->number, sizeof(value->number));
}

struct read_back {
    uint8_t bytes[VALUE_MAX];
    socklen_t size;
};

static struct read_back read_option(int fd, const struct option *option)
{
    struct read_back back = {.size = VALUE_MAX};

    NEED(getsockopt(fd, option->level, option->name, back.bytes, &back.size) == 0);
    return back;
}

static bool same(const struct read_back *a, const struct read_back *b)
{
    return a->size == b->size && memcmp(a->bytes, b->bytes, a->size) == 0;
}

static int listening_socket(int domain)
{
    struct mfd_address address = address_of(domain == AF_INET ? "127.0.0.1" : "::1", 0);
    int fd = socket(domain, SOCK_STREAM | SOCK_CLOEXEC, 0);
    union mfd_sockaddr sockaddr;
    socklen_t length;

    NEED(fd >= 0 && mfd_address_format(&address, domain, &sockaddr, &length) == 0);
    if (bind(fd, &sockaddr.any, length) < 0 || listen(fd, 1) < 0) {
        (void)close(fd);
        return -1;
    }
    return fd;
}

static void one_option_is_carried(const struct option *option, const struct value *value,
                                  int domain)
{
    MFD_CLOSE int from = socket(domain, SOCK_STREAM | SOCK_CLOEXEC, 0);
    MFD_CLOSE int to = listening_socket(domain);
    struct read_back before;
    struct read_back wanted;
    struct read_back carried;
    char about[64];

    (void)snprintf(about, sizeof(about), "level %d, option %d, domain %d", option->level,
                   option->name, domain);
    if (from < 0 || to < 0) {
        check_skip("sockets of that family");
        return;
    }
    before = read_option(to, option);
    if (set(from, value) < 0) { /* then the program could not set it either */
        char text[128];

        (void)snprintf(text, sizeof(text), "%s: %s", about, strerror(errno));
        if (errno == EPERM)
            (void)fprintf(stderr, "not permitted: %s\n", about);
        else
            check_skip(text);
        return;
    }
    check_about = about;
    wanted = read_option(from, option);
    CHECK(!same(&before, &wanted)); /* else this row shows nothing */
    mfd_options_carry(from, to);
    carried = read_option(to, option);
    CHECK(same(&wanted, &carried));
    mfd_options_carry(from, to);
    carried = read_option(to, option);
    CHECK(same(&wanted, &carried)); /* once more changes nothing */
    check_about = "";
}

static void every_option_is_carried(void)
{
    static const int domains[] = {AF_INET, AF_INET6};

    for (size_t i = 0; i < MFD_COUNT(options); i++) {
        const struct value *value = value_for(&options[i]);

        NEED(value != NULL);
        for (size_t j = 0; j < MFD_COUNT(domains); j++)
            if (value->domain == 0 || value->domain == domains[j])
                one_option_is_carried(&options[i], value, domains[j]);
    }
}

/* The kernel doubles a buffer's size when it is set; what arrives is what the program asked for. */
static void buffers_are_not_doubled_twice(void)
{
    MFD_CLOSE int from = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    MFD_CLOSE int to = listening_socket(AF_INET);
    const int asked = 20000;
    int got = 0;

    NEED(from >= 0 && to >= 0);
    NEED(setsockopt(from, SOL_SOCKET, SO_RCVBUF, &asked, sizeof(asked)) == 0);
    mfd_options_carry(from, to);
    CHECK_EQ(mfd_socket_option(to, SOL_SOCKET, SO_RCVBUF, &got), 0);
    CHECK_EQ(got, 2 * asked);
}

/* Not the program's choice: bind() is past, and V6ONLY is part of the address. */
static void what_belongs_to_the_address_is_left_alone(void)
{
    const int on = 1;
    MFD_CLOSE int from = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    MFD_CLOSE int to = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int before = -1;
    int after = -1;

    if (from < 0 || to < 0) {
        check_skip("IPv6");
        return;
    }
    (void)mfd_socket_option(to, IPPROTO_IPV6, IPV6_V6ONLY, &before);
    NEED(setsockopt(from, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) == 0);
    NEED(setsockopt(from, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)) == 0);
    NEED(setsockopt(from, IPPROTO_IPV6, IPV6_V6ONLY, &(int){!before}, sizeof(int)) == 0);
    mfd_options_carry(from, to);
    CHECK_EQ(mfd_socket_option(to, IPPROTO_IPV6, IPV6_V6ONLY, &after), 0);
    CHECK_EQ(after, before);
    CHECK_EQ(mfd_socket_option(to, SOL_SOCKET, SO_REUSEADDR, &after), 0);
    CHECK_EQ(after, 0);
    CHECK_EQ(mfd_socket_option(to, SOL_SOCKET, SO_REUSEPORT, &after), 0);
    CHECK_EQ(after, 0);
}

int main(void)
{
    every_option_is_carried();
    buffers_are_not_doubled_twice();
    what_belongs_to_the_address_is_left_alone();
    return check_result();
}
