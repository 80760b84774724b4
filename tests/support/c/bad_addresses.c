/* bad_addresses.c - bad_addresses HOST PORT: what socket, connect, bind and listen answer to nonsense
 *
 * PORT must be served on 127.0.0.1 and be what HOST:PORT leads to. The transcript must be the same
 * whoever watches. Calls are made by syscall(2), so that no library improves an argument. */
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/un.h>

#include "say.h"

#define NO_SUCH_FD 900
#define MPTCP 262

static struct address good;
static struct address good6; /* the same, v4-mapped */
static char *edge;           /* memory ends here */

static long raw_connect(int fd, const void *address, unsigned long length)
{
    return syscall(SYS_connect, fd, address, length);
}

static void fresh_connect(int family, const void *address, unsigned long length, const char *what)
{
    int fd = sure("socket", socket(family, SOCK_STREAM, 0));

    say((int)raw_connect(fd, address, length), "connect %s %s", family == AF_INET ? "v4" : "v6",
        what);
    close(fd);
}

static void places(int family, const struct address *address)
{
    char *at_edge = edge - address->length;

    memcpy(at_edge, &address->storage, address->length);
    fresh_connect(family, NULL, address->length, "NULL");
    fresh_connect(family, NULL, 0, "NULL, no length");
    fresh_connect(family, edge, address->length, "unmapped");
    fresh_connect(family, edge - 8, address->length, "half mapped");
    fresh_connect(family, edge - 8, 8, "short at the edge");
    fresh_connect(family, (void *)(uintptr_t)-4096, address->length, "kernel memory");
    fresh_connect(family, at_edge, address->length, "at the edge");
    fresh_connect(family, at_edge, address->length + 1, "one byte over the edge");
}

static void lengths(int family, const struct address *address)
{
    static const unsigned long all[] = {
        0,  1,  2,   3,   7,   8,   15,  16,  17,         23,         24,         27,  28,
        29, 64, 109, 110, 111, 127, 128, 129, 0x7fffffff, 0xffffffff, 0x80000000, ~0ul};
    char what[32];

    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        snprintf(what, sizeof(what), "length %#lx", all[i]);
        fresh_connect(family, &address->storage, all[i], what);
    }
    if (sizeof(long) == 8) {
        unsigned long high = (unsigned long)((uint64_t)1 << 32);

        fresh_connect(family, &address->storage, high | address->length, "length with high bits");
    }
}

static void families(int family, const struct address *address)
{
    static const sa_family_t all[] = {AF_UNSPEC, AF_UNIX, AF_INET, AF_INET6, AF_NETLINK, 0xffff};
    char what[32];

    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        struct address other = *address;

        other.storage.ss_family = all[i];
        snprintf(what, sizeof(what), "family %#x", all[i]);
        fresh_connect(family, &other.storage, other.length, what);
        snprintf(what, sizeof(what), "family %#x, whole", all[i]);
        fresh_connect(family, &other.storage, sizeof(other.storage), what);
        snprintf(what, sizeof(what), "family %#x, alone", all[i]);
        fresh_connect(family, &other.storage, sizeof(sa_family_t), what);
    }
}

static void wrong_fds(void)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX, .sun_path = "/nonexistent/socket"};
    int pipe_fds[2];
    int fd = sure("open", open("/dev/null", O_RDWR));
    int path_fd = sure("open", open("/", O_PATH));
    int udp = sure("socket", socket(AF_INET, SOCK_DGRAM, 0));
    int local = sure("socket", socket(AF_UNIX, SOCK_STREAM, 0));

    sure("pipe", pipe(pipe_fds));
    say(dial(-1, &good), "connect fd -1");
    say(dial(NO_SUCH_FD, &good), "connect closed fd");
    say((int)raw_connect(NO_SUCH_FD, NULL, good.length), "connect closed fd, NULL");
    say(dial(fd, &good), "connect a device");
    say(dial(path_fd, &good), "connect a path");
    say(dial(pipe_fds[0], &good), "connect a pipe");
    say(dial(udp, &good), "connect udp");
    say(dial(local, &good), "connect unix to inet");
    say(connect(local, (void *)&un, sizeof(un)), "connect unix to no file");
    say(connect(local, (void *)&un, 16), "connect unix to no file, 16 bytes");
    say(connect(udp, (void *)&un, sizeof(un)), "connect udp to unix");
    say(bind(NO_SUCH_FD, sockaddr_of(&good), good.length), "bind closed fd");
    say(bind(fd, sockaddr_of(&good), good.length), "bind a device");
    say(listen(NO_SUCH_FD, 1), "listen closed fd");
    say(listen(fd, 1), "listen a device");
    say(listen(udp, 1), "listen udp");
    close(fd);
    close(path_fd);
    close(pipe_fds[0]);
    close(pipe_fds[1]);
    close(udp);
    close(local);
}

static void used_sockets(void)
{
    struct address nowhere = good;
    struct address unspec = good;
    int fd = tcp_socket(&good, 0);

    unspec.storage.ss_family = AF_UNSPEC;
    nowhere.storage.ss_family = AF_UNIX;
    say(dial(fd, &good), "connect");
    say(dial(fd, &good), "connect again");
    say((int)raw_connect(fd, NULL, good.length), "connect again, NULL");
    say((int)raw_connect(fd, &good.storage, 4), "connect again, short");
    say((int)raw_connect(fd, &nowhere.storage, good.length), "connect again, other family");
    say(bind(fd, sockaddr_of(&good), good.length), "bind when connected");
    say(listen(fd, 1), "listen when connected");
    say(dial(fd, &unspec), "disconnect");
    say(dial(fd, &good), "connect after disconnect");
    say(shutdown(fd, SHUT_RDWR), "shutdown");
    say(dial(fd, &good), "connect after shutdown");
    close(fd);
    fd = tcp_socket(&good, 0);
    say(listen(fd, 1), "listen unbound");
    say(dial(fd, &good), "connect a listening socket");
    say(listen(fd, 2), "listen again");
    close(fd);
}

static void binds(void)
{
    struct address any = address_of("127.0.0.1", "0");
    struct address strange = address_of("2001:db8::1", "0");
    struct address taken = {.family = AF_INET, .length = sizeof(struct sockaddr_in)};
    int first = tcp_socket(&any, 0);
    int fd = tcp_socket(&any, 0);
    int six = tcp_socket(&strange, 0);

    say(bind(fd, NULL, any.length), "bind NULL");
    say(bind(fd, (void *)edge, any.length), "bind unmapped");
    say(bind(fd, sockaddr_of(&any), 2), "bind short");
    say(bind(fd, sockaddr_of(&any), 15), "bind 15 bytes");
    say((int)syscall(SYS_bind, fd, &any.storage, 129ul), "bind 129 bytes");
    say((int)syscall(SYS_bind, fd, &any.storage, ~0ul), "bind negative length");
    any.storage.ss_family = AF_UNIX;
    say(bind(fd, sockaddr_of(&any), any.length), "bind other family");
    any.storage.ss_family = AF_UNSPEC;
    say(bind(fd, sockaddr_of(&any), any.length), "bind unspecified family");
    any.storage.ss_family = AF_INET;
    say(bind(six, sockaddr_of(&strange), strange.length), "bind another's address");
    say(bind(six, sockaddr_of(&any), any.length), "bind v6 to v4");
    say(bind(first, sockaddr_of(&any), any.length), "bind");
    say(bind(first, sockaddr_of(&any), any.length), "bind twice");
    say(listen(first, -1), "listen negative backlog");
    sure("getsockname", getsockname(first, (void *)&taken.storage, &taken.length));
    say(bind(fd, sockaddr_of(&taken), taken.length), "bind in use");
    close(first);
    say(bind(fd, sockaddr_of(&taken), taken.length), "bind what was closed");
    close(fd);
    close(six);
}

static void make(int family, int type, int protocol, const char *what)
{
    int fd = socket(family, type, protocol);

    say(fd, "socket %s", what);
    if (fd >= 0)
        close(fd);
}

static void sockets(void)
{
    struct rlimit saved, none;
    int fd;

    make(AF_INET, 99, 0, "type 99");
    make(AF_INET, SOCK_STREAM | 0x40, 0, "unknown flag");
    make(AF_INET, SOCK_STREAM, 999, "protocol 999");
    make(AF_INET, SOCK_STREAM, -1, "protocol -1");
    make(AF_INET, SOCK_STREAM, IPPROTO_UDP, "stream of udp");
    make(AF_INET, SOCK_DGRAM, IPPROTO_TCP, "datagrams of tcp");
    make(AF_INET, SOCK_SEQPACKET, 0, "seqpacket");
    make(AF_INET6, SOCK_STREAM, IPPROTO_TCP, "v6 tcp");
    make(AF_INET, SOCK_STREAM, MPTCP, "mptcp");
    make(AF_MAX + 1, SOCK_STREAM, 0, "family out of range");
    make(-1, SOCK_STREAM, 0, "family -1");
    make(AF_UNSPEC, SOCK_STREAM, 0, "family 0");
    make(AF_UNIX, SOCK_STREAM, 0, "unix");
    make(AF_NETLINK, SOCK_RAW, 0, "netlink");
    fd = sure("dup", dup(0));
    close(fd);
    sure("getrlimit", getrlimit(RLIMIT_NOFILE, &saved));
    none = saved;
    none.rlim_cur = (rlim_t)fd; /* the lowest free number is out of bounds */
    sure("setrlimit", setrlimit(RLIMIT_NOFILE, &none));
    make(AF_INET, SOCK_STREAM, 0, "with no number left");
    make(AF_INET, SOCK_STREAM, 999, "with no number left, protocol 999");
    sure("setrlimit", setrlimit(RLIMIT_NOFILE, &saved));
    fd = socket(AF_INET, SOCK_STREAM, 0);
    sure("dup", dup(0));
    printf("socket takes the lowest number: %s\n", fd == 3 ? "yes" : "no");
    close(fd);
}

int main(int argc, char **argv)
{
    long page = sysconf(_SC_PAGESIZE);
    char mapped[64];
    char *memory;

    (void)argc;
    good = address_of(argv[1], argv[2]);
    snprintf(mapped, sizeof(mapped), "::ffff:%s", argv[1]);
    good6 = address_of(mapped, argv[2]);
    for (int fd = 3; fd < NO_SUCH_FD; fd++)
        close(fd);
    memory =
        mmap(NULL, 2 * (size_t)page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED || munmap(memory + page, (size_t)page) < 0)
        sure("mmap", -1);
    edge = memory + page;
    sockets();
    places(AF_INET, &good);
    places(AF_INET6, &good6);
    lengths(AF_INET, &good);
    lengths(AF_INET6, &good6);
    families(AF_INET, &good);
    families(AF_INET6, &good6);
    wrong_fds();
    used_sockets();
    binds();
    return 0;
}
