/* landlocked.c - landlocked MODE HOST PORT ALLOWED...: connect under Landlock, which allows these ports alone
 *
 * MODE: blocking, nonblocking. Says what connect() said, and whether there is a connection after all,
 * which is waited for where one may be on its way. bind: HOST:PORT is bound, which no rule allows.
 * "no landlock" where the kernel has none for TCP. */
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "say.h"

#define CREATE_RULESET 444 /* asm-generic/unistd.h; the same everywhere */
#define ADD_RULE 445
#define RESTRICT_SELF 446
#define RULE_NET_PORT 2 /* linux/landlock.h */
#define NET_BIND_TCP 1
#define NET_CONNECT_TCP 2

struct ruleset {
    uint64_t files;
    uint64_t net;
};

struct net_port {
    uint64_t allowed;
    uint64_t port;
};

static int confine(char **ports)
{
    struct ruleset handled = {.net = NET_BIND_TCP | NET_CONNECT_TCP};
    int ruleset = (int)syscall(CREATE_RULESET, &handled, sizeof(handled), 0);

    if (ruleset < 0)
        return 0;
    for (; *ports != NULL; ports++) {
        struct net_port rule = {.allowed = NET_CONNECT_TCP, .port = strtoull(*ports, NULL, 10)};

        sure("landlock_add_rule", (int)syscall(ADD_RULE, ruleset, RULE_NET_PORT, &rule, 0));
    }
    sure("PR_SET_NO_NEW_PRIVS", prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    sure("landlock_restrict_self", (int)syscall(RESTRICT_SELF, ruleset, 0));
    close(ruleset);
    return 1;
}

static void bind_there(const struct address *address)
{
    socklen_t size = sizeof(int);
    int listens = -1;
    int fd = tcp_socket(address, 0);

    say(bind(fd, sockaddr_of(address), address->length), "bind");
    sure("SO_ACCEPTCONN", getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size));
    printf("listens: %d\n", listens);
}

int main(int argc, char **argv)
{
    struct address address = address_of(argv[2], argv[3]);
    struct sockaddr_storage peer;
    socklen_t length = sizeof(peer);
    int fd;

    (void)argc;
    if (!confine(argv + 4)) {
        puts("no landlock");
        return 0;
    }
    if (strcmp(argv[1], "bind") == 0) {
        bind_there(&address);
        return 0;
    }
    fd = tcp_socket(&address, strcmp(argv[1], "nonblocking") == 0 ? SOCK_NONBLOCK : 0);
    say(dial(fd, &address), "connect");
    wait_for(fd, POLLOUT); /* a socket that never connected says POLLHUP at once */
    printf("connected: %s\n", getpeername(fd, (void *)&peer, &length) == 0 ? "yes" : "no");
    return 0;
}
