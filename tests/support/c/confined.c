/* confined.c - confined HOST PORT: connect and bind when Landlock has forbidden both
 *
 * Prints "no landlock" where the kernel has none for TCP (before Linux 6.7). */
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "say.h"

#define CREATE_RULESET 444 /* asm-generic/unistd.h; the same everywhere */
#define RESTRICT_SELF 446
#define NET_BIND_TCP 1 /* linux/landlock.h */
#define NET_CONNECT_TCP 2

struct ruleset {
    uint64_t files;
    uint64_t net;
};

int main(int argc, char **argv)
{
    struct ruleset forbidden = {.net = NET_BIND_TCP | NET_CONNECT_TCP};
    struct address address = address_of(argv[1], argv[2]);
    struct address any = address_of("127.0.0.1", "0");
    int ruleset = (int)syscall(CREATE_RULESET, &forbidden, sizeof(forbidden), 0);
    int fd;

    (void)argc;
    if (ruleset < 0) {
        puts("no landlock");
        return 0;
    }
    sure("PR_SET_NO_NEW_PRIVS", prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    sure("landlock_restrict_self", (int)syscall(RESTRICT_SELF, ruleset, 0));
    fd = tcp_socket(&address, 0);
    say(dial(fd, &address), "connect");
    say(bind(fd, sockaddr_of(&any), any.length), "bind");
    return 0;
}
