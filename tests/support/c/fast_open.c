/* fast_open.c - fast_open HOST PORT [nonblocking]: TCP_FASTOPEN_CONNECT, twice
 *
 * The first connection may fetch the cookie; the second sends its data with the SYN. */
#include "say.h"

#define SYN_DATA_ACCEPTED 32 /* linux/tcp.h: TCPI_OPT_SYN_DATA */

static void connect_fast(const struct address *address, int flags)
{
    struct tcp_info info = {0};
    socklen_t size = sizeof(info);
    const int on = 1;
    int fd = tcp_socket(address, flags);

    say(setsockopt(fd, IPPROTO_TCP, TCP_FASTOPEN_CONNECT, &on, sizeof(on)), "option");
    say(dial(fd, address), "connect");
    printf("poll: %#x\n", (unsigned)wait_for(fd, POLLOUT));
    say((int)send(fd, "?", 1, 0), "send");
    say_rest(fd, "greeting");
    sure("TCP_INFO", getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size));
    printf("data in the SYN: %s\n", info.tcpi_options & SYN_DATA_ACCEPTED ? "yes" : "no");
    close(fd);
}

int main(int argc, char **argv)
{
    struct address address = address_of(argv[1], argv[2]);

    for (int i = 0; i < 2; i++)
        connect_fast(&address, argc > 3 ? SOCK_NONBLOCK : 0);
    return 0;
}
