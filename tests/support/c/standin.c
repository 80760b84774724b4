/* standin.c - standin MODE HOST PORT: what a program sees of a connected socket, step by step
 *
 * The peer greets, echoes what it gets, line by line, and at "end" shuts its side down and waits for ours.
 *
 * talk      blocking; reading, writing, half-close, end      states    non-blocking, flags, errors
 * names     getsockname() and getpeername(), all lengths      options   get and set, before and after
 * bound     a socket that is bound first                      dups      dup()s with flags of their own
 * rebound   its address is free again                       waited    a thread waits in select()
 * parked    epoll registrations before connect                again     connect() once more, AF_UNSPEC
 * hello     the greeting alone                                denied    in an epoll instance, and refused
 * broken    SIGPIPE, EPIPE                                    many      500 epoll instances
 * shared    with a child, which waits for a line
 * waited-dup   so, by another number
 * retry     HOST PORT FIRST: FIRST refuses; then as usual, on the same socket
 * What cannot be the same (ports that the kernel chooses) is not printed. */
#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "say.h"

static struct address address;

static void say_line(int fd, const char *step)
{
    char text[64];
    size_t n = 0;

    while (n < sizeof(text) - 1) {
        ssize_t got;

        wait_for(fd, POLLIN);
        got = read(fd, text + n, 1);
        if (got <= 0 || text[n] == '\n')
            break;
        n++;
    }
    text[n] = '\0';
    printf("%s: \"%s\"\n", step, text);
}

static void tell(int fd, const char *line)
{
    sure("write", (int)write(fd, line, strlen(line)));
}

static int dialled(int flags)
{
    int fd = tcp_socket(&address, flags);

    say(dial(fd, &address), "connect");
    return fd;
}

/* --- talk ------------------------------------------------------------------------------------------- */

static void talk(void)
{
    char byte;
    int waiting = 0;
    int fd = dialled(0);

    say_line(fd, "greeting");
    tell(fd, "one\ntwo\n");
    say_line(fd, "echo");
    wait_for(fd, POLLIN);
    sure("FIONREAD", ioctl(fd, FIONREAD, &waiting));
    printf("waiting: %d\n", waiting);
    say((int)recv(fd, &byte, 1, MSG_PEEK), "peek");
    say_line(fd, "echo");
    say((int)recv(fd, &byte, 1, MSG_DONTWAIT), "nothing there");
    tell(fd, "end\n");
    say_line(fd, "last");
    printf("end: %d\n", (int)read(fd, &byte, 1));
    printf("rdhup: %d\n", (wait_for(fd, POLLRDHUP) & POLLRDHUP) != 0);
    tell(fd, "after\n");
    say(shutdown(fd, SHUT_WR), "shutdown");
    say((int)send(fd, "x", 1, MSG_NOSIGNAL), "send");
    say(shutdown(fd, 7), "shutdown of nonsense");
    say(close(fd), "close");
    say(close(fd), "close again");
}

/* --- states ----------------------------------------------------------------------------------------- */

static void say_flags(int fd, const char *when)
{
    printf("%s: status %#o, descriptor %d\n", when, (unsigned)sure("F_GETFL", fcntl(fd, F_GETFL)),
           sure("F_GETFD", fcntl(fd, F_GETFD)));
}

static void states(void)
{
    struct sockaddr_in6 name = {0};
    socklen_t length = sizeof(name);
    int fd = tcp_socket(&address, SOCK_NONBLOCK | SOCK_CLOEXEC);
    char byte;

    say(getpeername(fd, (struct sockaddr *)&name, &length), "getpeername before");
    say((int)read(fd, &byte, 1), "read before");
    if (dial(fd, &address) < 0 && errno != EINPROGRESS)
        sure("connect", -1);
    wait_for(fd, POLLOUT);
    printf("SO_ERROR: %s\n", name_of(socket_error(fd)));
    say_flags(fd, "flags");
    say_line(fd, "greeting");
    say((int)read(fd, &byte, 1), "nothing there");
    sure("F_SETFL", fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK));
    say_flags(fd, "blocking");
    say(listen(fd, 1), "listen");
    say(accept(fd, NULL, NULL), "accept");
    say(bind(fd, sockaddr_of(&address), address.length), "bind");
    say(fcntl(fd, F_SETFD, 0), "F_SETFD");
    tell(fd, "end\n");
    say_line(fd, "last");
}

/* --- hello, denied ---------------------------------------------------------------------------------- */

static void hello(void)
{
    int fd = tcp_socket(&address, 0);
    int result = dial(fd, &address);

    say(result, "connect");
    if (result == 0)
        say_line(fd, "greeting");
}

/* --- names ------------------------------------------------------------------------------------------ */

typedef int name_call(int fd, struct sockaddr *name, socklen_t *length);

static void say_name(name_call *call, const char *step, int fd, socklen_t length)
{
    unsigned char room[40];
    struct sockaddr_in *in = (struct sockaddr_in *)room;
    int result;

    memset(room, 0xee, sizeof(room));
    result = call(fd, (struct sockaddr *)room, &length);
    if (call == getsockname) /* its port is the kernel's choice: the same offset in both families */
        in->sin_port = 0;
    printf("%s: %s, %u,", step, result < 0 ? name_of(errno) : "0", length);
    for (size_t i = 0; i < sizeof(room); i++)
        printf(" %02x", room[i]);
    printf("\n");
}

static void names(void)
{
    static const socklen_t lengths[] = {0, 1, 2, 4, 8, 15, 16, 17, 27, 28, 29, 40, 128, -1};
    int fd = dialled(0);
    struct sockaddr_storage room;
    socklen_t *nowhere = (socklen_t *)8;
    socklen_t length = sizeof(room);
    struct sockaddr_in *in = (struct sockaddr_in *)&room;
    in_port_t port;

    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        say_name(getpeername, "peer", fd, lengths[i]);
        say_name(getsockname, "local", fd, lengths[i]);
    }
    say(getpeername(fd, (struct sockaddr *)&room, nowhere), "nowhere");
    say(getpeername(fd, (struct sockaddr *)8, &length), "nowhere");
    say(getpeername(STDIN_FILENO, (struct sockaddr *)&room, &length), "no socket");
    say(getpeername(99, (struct sockaddr *)&room, &length), "no file");
    sure("getsockname", getsockname(fd, (struct sockaddr *)&room, &length));
    printf("port: %d\n", in->sin_port != 0);
    port = in->sin_port;
    sure("getsockname", getsockname(fd, (struct sockaddr *)&room, &length));
    printf("stable: %d\n", in->sin_port == port);
}

/* --- options ---------------------------------------------------------------------------------------- */

struct option {
    const char *name;
    int level, number, value;
};

#define OPTION(level, name, value) {#name, level, name, value}

static const struct option options[] = {
    OPTION(IPPROTO_TCP, TCP_NODELAY, 1),
    OPTION(IPPROTO_TCP, TCP_CORK, 1),
    OPTION(IPPROTO_TCP, TCP_KEEPIDLE, 77),
    OPTION(IPPROTO_TCP, TCP_KEEPINTVL, 7),
    OPTION(IPPROTO_TCP, TCP_KEEPCNT, 3),
    OPTION(IPPROTO_TCP, TCP_USER_TIMEOUT, 12345),
    OPTION(IPPROTO_TCP, TCP_SYNCNT, 4),
    OPTION(IPPROTO_TCP, TCP_LINGER2, 9),
    OPTION(IPPROTO_TCP, TCP_NOTSENT_LOWAT, 4096),
    OPTION(IPPROTO_TCP, TCP_KEEPIDLE, 0),
    OPTION(IPPROTO_TCP, TCP_DEFER_ACCEPT, 0),
    OPTION(IPPROTO_TCP, TCP_FASTOPEN, 3),
    OPTION(IPPROTO_IP, IP_TTL, 1),
    OPTION(IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1),
    OPTION(IPPROTO_TCP, TCP_KEEPIDLE, 1 << 30),
    OPTION(IPPROTO_IP, IP_TOS, 0x10),
    OPTION(IPPROTO_IP, IP_TTL, 33),
    OPTION(IPPROTO_IP, IP_TTL, 300),
    OPTION(IPPROTO_IP, IP_MTU_DISCOVER, 1),
    OPTION(IPPROTO_IPV6, IPV6_UNICAST_HOPS, 44),
    OPTION(IPPROTO_IPV6, IPV6_TCLASS, 8),
    OPTION(IPPROTO_IPV6, IPV6_V6ONLY, 1),
    OPTION(SOL_SOCKET, SO_KEEPALIVE, 1),
    OPTION(SOL_SOCKET, SO_REUSEADDR, 1),
    OPTION(SOL_SOCKET, SO_RCVLOWAT, 1),
    OPTION(SOL_SOCKET, SO_PRIORITY, 3),
    OPTION(SOL_SOCKET, SO_DOMAIN, 1),
    OPTION(SOL_SOCKET, SO_PROTOCOL, 1),
    OPTION(SOL_SOCKET, SO_TYPE, 1),
    OPTION(SOL_SOCKET, SO_ACCEPTCONN, 1),
    OPTION(SOL_SOCKET, SO_PEERCRED, 1),
    OPTION(SOL_SOCKET, SO_PEERSEC, 1),
    OPTION(SOL_SOCKET, SO_PEERGROUPS, 1),
    {"unknown", IPPROTO_TCP, 0x7777, 1},
    {"unknown", IPPROTO_IP, 0x7777, 1},
    {"unknown", IPPROTO_IPV6, 0x7777, 1},
    {"unknown", SOL_SOCKET, 0x7777, 1},
    {"unknown", 0x7777, 1, 1},
};

#define N_OPTIONS (sizeof(options) / sizeof(options[0]))

static void say_option(int fd, const struct option *option, socklen_t length, const char *when)
{
    unsigned char value[32] = {0};
    socklen_t told = length;
    int result = getsockopt(fd, option->level, option->number, value, &told);

    printf("%s %s (%u): %s, %u,", when, option->name, length, result < 0 ? name_of(errno) : "0",
           told);
    for (size_t i = 0; i < 16; i++)
        printf(" %02x", value[i]);
    printf("\n");
}

static void set(int fd, const struct option *option, const char *when)
{
    int result = setsockopt(fd, option->level, option->number, &option->value, sizeof(int));

    printf("%s %s = %d", when, option->name, option->value);
    say(result, "%s", "");
}

static void say_strings(int fd)
{
    char name[16] = "reno";
    socklen_t length = sizeof(name);

    say(setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name, 4), "TCP_CONGESTION");
    memset(name, 0, sizeof(name));
    say(getsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name, &length), "TCP_CONGESTION");
    printf("%s, %u\n", name, length);
}

static void say_rest_of_options(int fd)
{
    struct tcp_info info = {0};
    struct sockaddr_storage peer;
    unsigned long long cookie = 0;
    socklen_t length = sizeof(info);
    int value = 0;

    sure("TCP_INFO", getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length));
    printf("TCP_INFO: state %d, %d\n", info.tcpi_state, length > 100);
    length = 1;
    sure("TCP_INFO", getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length));
    printf("TCP_INFO: %u\n", length);
    length = sizeof(value);
    sure("TCP_MAXSEG", getsockopt(fd, IPPROTO_TCP, TCP_MAXSEG, &value, &length));
    printf("TCP_MAXSEG: %d\n", value > 500);
    length = address.length;
    say(getsockopt(fd, SOL_SOCKET, SO_PEERNAME, &peer, &length), "SO_PEERNAME");
    printf("%u, %d\n", length, memcmp(&peer, &address.storage, 8));
    length = address.length + 1;
    say(getsockopt(fd, SOL_SOCKET, SO_PEERNAME, &peer, &length), "SO_PEERNAME");
    length = sizeof(cookie);
    say(getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &length), "SO_COOKIE");
    printf("%d\n", cookie != 0);
    length = (socklen_t)-1;
    say(getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &value, &length), "negative length");
    say(getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &value, NULL), "nowhere");
    length = sizeof(value);
    say(getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, NULL, &length), "nowhere");
    say(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, NULL, sizeof(value)), "nowhere");
    say(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &value, 1), "too short");
    say(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &value, (socklen_t)-1), "negative length");
}

static void show_options(void)
{
    int fd = tcp_socket(&address, 0);

    for (size_t i = 0; i < N_OPTIONS; i += 2)
        set(fd, &options[i], "before");
    say(dial(fd, &address), "connect");
    for (size_t i = 0; i < N_OPTIONS; i++)
        say_option(fd, &options[i], 4, "after");
    for (size_t i = 1; i < N_OPTIONS; i += 2)
        set(fd, &options[i], "after");
    for (size_t i = 0; i < N_OPTIONS; i++)
        for (socklen_t length = 0; length < 6; length++)
            say_option(fd, &options[i], length, "then");
    say_strings(fd);
    say_rest_of_options(fd);
    say_line(fd, "greeting");
}

/* --- bound ------------------------------------------------------------------------------------------ */

static void bound(void)
{
    struct address any = address_of(address.family == AF_INET ? "127.0.0.9" : "::1", "0");
    struct sockaddr_storage name = {0};
    socklen_t length = sizeof(name);
    struct sockaddr_in *in = (struct sockaddr_in *)&name;
    int fd = tcp_socket(&address, 0);
    in_port_t port;

    say(bind(fd, sockaddr_of(&any), any.length), "bind");
    sure("getsockname", getsockname(fd, (struct sockaddr *)&name, &length));
    port = in->sin_port;
    say(dial(fd, &address), "connect");
    sure("getsockname", getsockname(fd, (struct sockaddr *)&name, &length));
    printf("same port: %d, same host: %d\n", in->sin_port == port,
           memcmp((char *)&name + 4, (char *)&any.storage + 4, 4) == 0);
    say_line(fd, "greeting");
}

/* Nothing of the socket that was replaced is left, or its port would be taken. */
static void rebound(void)
{
    struct address any = address_of("127.0.0.9", "0");
    socklen_t length = any.length;
    int fd = tcp_socket(&address, 0);

    say(bind(fd, sockaddr_of(&any), any.length), "bind");
    sure("getsockname", getsockname(fd, (struct sockaddr *)&any.storage, &length));
    say(dial(fd, &address), "connect");
    fd = tcp_socket(&address, 0);
    say(bind(fd, sockaddr_of(&any), any.length), "bind another");
}

/* --- dups ------------------------------------------------------------------------------------------- */

static void dups(void)
{
    int fd = tcp_socket(&address, SOCK_CLOEXEC);
    int other = sure("dup", dup(fd));
    int third = sure("F_DUPFD", fcntl(fd, F_DUPFD_CLOEXEC, 200));
    int stranger = tcp_socket(&address, 0);
    char byte;

    say(dial(other, &address), "connect");
    say_flags(fd, "fd");
    say_flags(other, "other");
    say_flags(third, "third");
    say_line(third, "greeting");
    tell(fd, "x\n");
    say_line(other, "echo");
    sure("F_SETFL", fcntl(third, F_SETFL, O_RDWR | O_NONBLOCK));
    say((int)read(fd, &byte, 1), "nothing there");
    say((int)read(stranger, &byte, 1), "stranger");
    say(close(fd), "close");
    say(close(other), "close");
    tell(third, "end\n");
    say_line(third, "last");
}

/* A child has the socket, and keeps the unconnected one. */
static void shared(void)
{
    int fd = tcp_socket(&address, 0);
    pid_t child = sure("fork", fork());
    char byte;

    if (child == 0) {
        wait_line();
        say((int)read(fd, &byte, 1), "the child's");
        _exit(0);
    }
    say(dial(fd, &address), "connect");
    say_line(fd, "greeting");
    sure("waitpid", waitpid(child, NULL, 0));
}

/* --- parked ----------------------------------------------------------------------------------------- */

static void say_events(int epoll, const char *step, int timeout_ms)
{
    struct epoll_event events[4];
    int n = sure("epoll_wait", epoll_wait(epoll, events, 4, timeout_ms));

    printf("%s: %d", step, n);
    for (int i = 0; i < n; i++)
        printf(" %#x %llx", events[i].events & ~(unsigned)(EPOLLRDNORM | EPOLLWRNORM),
               (unsigned long long)events[i].data.u64);
    printf("\n");
}

#define CONTROL(...) say(epoll_ctl(__VA_ARGS__), #__VA_ARGS__)

static void parked(void)
{
    struct epoll_event in = {.events = EPOLLIN, .data.u64 = 0xfedcba9876543210};
    struct epoll_event out = {.events = EPOLLOUT | EPOLLET, .data.u64 = 2};
    struct epoll_event exclusive = {.events = EPOLLIN | EPOLLEXCLUSIVE, .data.u64 = 3};
    struct epoll_event wrong = {.events = EPOLLIN | EPOLLEXCLUSIVE | EPOLLONESHOT};
    struct epoll_event *nowhere = (struct epoll_event *)8;
    int epoll = sure("epoll", epoll_create1(0));
    int second = sure("epoll", epoll_create1(0));
    int nested = sure("epoll", epoll_create1(0));
    int same = sure("dup", dup(epoll));
    int fd = tcp_socket(&address, 0);
    int other = sure("dup", dup(fd));
    int file = sure("open", open("/dev/null", O_RDONLY));
    char byte;

    CONTROL(epoll, EPOLL_CTL_MOD, fd, &in);
    CONTROL(epoll, EPOLL_CTL_DEL, fd, NULL);
    CONTROL(epoll, EPOLL_CTL_ADD, fd, &out);
    CONTROL(same, EPOLL_CTL_ADD, fd, &in);
    CONTROL(epoll, EPOLL_CTL_ADD, other, &out);
    CONTROL(same, EPOLL_CTL_DEL, other, nowhere);
    CONTROL(epoll, EPOLL_CTL_DEL, other, NULL);
    CONTROL(epoll, EPOLL_CTL_MOD, fd, &in);
    CONTROL(epoll, EPOLL_CTL_MOD, fd, nowhere);
    CONTROL(epoll, EPOLL_CTL_MOD, fd, &exclusive);
    CONTROL(second, EPOLL_CTL_ADD, fd, &wrong);
    CONTROL(second, EPOLL_CTL_ADD, fd, nowhere);
    CONTROL(second, EPOLL_CTL_ADD, other, &out);
    CONTROL(second, EPOLL_CTL_ADD, fd, &exclusive);
    CONTROL(second, EPOLL_CTL_MOD, fd, &in);
    CONTROL(epoll, 9, fd, &in);
    CONTROL(file, EPOLL_CTL_ADD, fd, &in);
    CONTROL(99, EPOLL_CTL_ADD, fd, &in);
    CONTROL(epoll, EPOLL_CTL_ADD, 99, &in);
    CONTROL(epoll, EPOLL_CTL_ADD, file, &in);
    CONTROL(epoll, EPOLL_CTL_ADD, epoll, &in);
    CONTROL(nested, EPOLL_CTL_ADD, epoll, &in);
    say(dial(fd, &address), "connect");
    wait_for(fd, POLLIN);
    say_events(nested, "nested", PATIENCE_MS);
    say_events(epoll, "in", PATIENCE_MS);
    say_events(epoll, "in again", PATIENCE_MS);
    say_events(second, "two", PATIENCE_MS);
    CONTROL(epoll, EPOLL_CTL_ADD, fd, &in);
    CONTROL(epoll, EPOLL_CTL_MOD, fd, &out);
    say_events(epoll, "out", PATIENCE_MS);
    say_events(epoll, "out, edge", 0);
    CONTROL(epoll, EPOLL_CTL_MOD, fd, &in);
    say_line(fd, "greeting");
    say_events(epoll, "nothing", 0);
    tell(fd, "x\n");
    say_events(epoll, "in", PATIENCE_MS);
    say_line(fd, "echo");
    CONTROL(second, EPOLL_CTL_DEL, other, NULL);
    CONTROL(second, EPOLL_CTL_DEL, other, NULL);
    CONTROL(epoll, EPOLL_CTL_DEL, fd, NULL);
    CONTROL(epoll, EPOLL_CTL_MOD, fd, &in);
    tell(fd, "end\n");
    say_line(fd, "last");
    printf("end: %d\n", (int)read(fd, &byte, 1));
    close(other);
    close(fd);
    say_events(second, "closed", 0);
}

static void denied(void)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT, .data.u64 = 7};
    int epoll = sure("epoll", epoll_create1(0));
    int fd = tcp_socket(&address, 0);

    sure("ADD", epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event));
    say(dial(fd, &address), "connect");
    say_events(epoll, "hup", PATIENCE_MS);
}

#define MANY 500

static int count_ready(const int *epolls)
{
    struct epoll_event event;
    int n = 0;

    for (int i = 0; i < MANY; i++)
        n += epoll_wait(epolls[i], &event, 1, 0) == 1 && event.data.u64 == (uint64_t)i;
    return n;
}

static void many(void)
{
    static int epolls[MANY];
    int fd = tcp_socket(&address, 0);

    for (int i = 0; i < MANY; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.u64 = (uint64_t)i};

        epolls[i] = sure("epoll", epoll_create1(0));
        sure("ADD", epoll_ctl(epolls[i], EPOLL_CTL_ADD, fd, &event));
    }
    say(dial(fd, &address), "connect");
    wait_for(fd, POLLIN);
    printf("ready: %d\n", count_ready(epolls));
    say_line(fd, "greeting");
    printf("ready: %d\n", count_ready(epolls));
}

static const char *first_host;

static void retry(void)
{
    struct address first = address_of(first_host, "80");
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = 7};
    int epoll = sure("epoll", epoll_create1(0));
    int fd = tcp_socket(&address, SOCK_NONBLOCK);

    sure("ADD", epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event));
    say(dial(fd, &first), "connect");
    sure("epoll_wait", epoll_wait(epoll, &event, 1, PATIENCE_MS));
    say(dial(fd, &first), "refused");
    say(dial(fd, &address), "connect");
    say_events(epoll, "in", PATIENCE_MS);
    say_line(fd, "greeting");
}

/* --- again ------------------------------------------------------------------------------------------ */

static void again(void)
{
    struct sockaddr_in6 wrong = {.sin6_family = address.family == AF_INET ? AF_INET6 : AF_INET};
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    int fd = dialled(0);

    say_line(fd, "greeting");
    say(dial(fd, &address), "connect again");
    say(connect(fd, (struct sockaddr *)&wrong, sizeof(wrong)), "another family");
    say(connect(fd, (struct sockaddr *)&un, sizeof(un)), "a unix socket");
    say(connect(fd, sockaddr_of(&address), 1), "one byte");
    say(connect(fd, sockaddr_of(&address), 4), "four bytes");
    say(connect(fd, (struct sockaddr *)8, 16), "nowhere");
    tell(fd, "x\n");
    say_line(fd, "echo");
}

/* Where a TCP socket would become unconnected. */
static void unspec(void)
{
    struct sockaddr nothing = {.sa_family = AF_UNSPEC};
    int fd = dialled(0);

    say(connect(fd, &nothing, sizeof(nothing)), "AF_UNSPEC");
    say(connect(fd, &nothing, sizeof(nothing.sa_family)), "AF_UNSPEC");
    say_line(fd, "greeting");
}

/* --- waited ----------------------------------------------------------------------------------------- */

static int waited_fd;

static void *wait_in_select(void *unused)
{
    fd_set exceptional;

    (void)unused;
    FD_ZERO(&exceptional);
    FD_SET(waited_fd, &exceptional);
    select(waited_fd + 1, NULL, NULL, &exceptional, NULL);
    return NULL;
}

static uint64_t inode_of(int fd)
{
    struct stat status;

    sure("fstat", fstat(fd, &status));
    return status.st_ino;
}

static void wait_and_dial(int fd)
{
    const uint64_t before = inode_of(fd);
    pthread_t thread;

    if (pthread_create(&thread, NULL, wait_in_select, NULL) != 0)
        _exit(SET_UP_FAILED);
    printf("select\n");
    fflush(stdout);
    wait_line(); /* the test has seen the thread sleep */
    say(dial(fd, &address), "connect");
    if (fd != waited_fd)
        printf("the same: %d\n", inode_of(fd) == before && inode_of(waited_fd) == before);
}

/* Its options are kept, and it can be used. */
static void waited(void)
{
    int on = 1;
    int value = 0;
    socklen_t size = sizeof(value);

    waited_fd = tcp_socket(&address, SOCK_CLOEXEC);
    sure("TCP_NODELAY", setsockopt(waited_fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)));
    sure("SO_KEEPALIVE", setsockopt(waited_fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on)));
    wait_and_dial(waited_fd);
    sure("TCP_NODELAY", getsockopt(waited_fd, IPPROTO_TCP, TCP_NODELAY, &value, &size));
    printf("TCP_NODELAY: %d\n", value);
    sure("SO_KEEPALIVE", getsockopt(waited_fd, SOL_SOCKET, SO_KEEPALIVE, &value, &size));
    printf("SO_KEEPALIVE: %d\n", value);
    say_flags(waited_fd, "flags");
    say(dial(waited_fd, &address), "connect");
    say_line(waited_fd, "greeting");
}

static void waited_dup(void)
{
    int fd = tcp_socket(&address, 0);

    waited_fd = sure("dup", dup(fd));
    wait_and_dial(fd);
}

/* --- broken ----------------------------------------------------------------------------------------- */

static void on_pipe(int signo)
{
    static const char text[] = "SIGPIPE\n";

    (void)signo;
    sure("write", (int)write(STDOUT_FILENO, text, sizeof(text) - 1));
}

static void broken(void)
{
    int fd = dialled(0);

    signal(SIGPIPE, on_pipe);
    say_line(fd, "greeting");
    say(shutdown(fd, SHUT_WR), "shutdown");
    say((int)write(fd, "x", 1), "write");
    say((int)send(fd, "x", 1, MSG_NOSIGNAL), "send");
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(void);
    } modes[] = {
        {"hello", hello},
        {"denied", denied},
        {"talk", talk},
        {"states", states},
        {"names", names},
        {"options", show_options},
        {"bound", bound},
        {"rebound", rebound},
        {"many", many},
        {"retry", retry},
        {"dups", dups},
        {"shared", shared},
        {"parked", parked},
        {"again", again},
        {"unspec", unspec},
        {"waited", waited},
        {"waited-dup", waited_dup},
        {"broken", broken},
    };

    setvbuf(stdout, NULL, _IOLBF, 0);
    address = address_of(argv[2], argv[3]);
    first_host = argc > 4 ? argv[4] : "";
    for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++)
        if (strcmp(argv[1], modes[i].name) == 0)
            modes[i].run();
    return 0;
}
