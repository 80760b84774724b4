/* hammer.c - hammer HOST PORT N: N connections, one after the other, for each line of input
 *
 * Prints its parent's pid, then "done" after each round; errors are printed as they come.
 * Connections are cut (SO_LINGER 0), so that no TIME_WAIT fills the port range. */
#include "say.h"

static void connect_once(const struct address *address)
{
    struct linger cut = {.l_onoff = 1};
    int fd = tcp_socket(address, SOCK_CLOEXEC);

    if (dial(fd, address) < 0)
        say(-1, "connect");
    sure("SO_LINGER", setsockopt(fd, SOL_SOCKET, SO_LINGER, &cut, sizeof(cut)));
    close(fd);
}

int main(int argc, char **argv)
{
    struct address address = address_of(argv[1], argv[2]);
    int n = atoi(argv[3]);

    (void)argc;
    printf("parent: %d\n", (int)getppid());
    fflush(stdout);
    while (wait_line()) {
        for (int i = 0; i < n; i++)
            connect_once(&address);
        puts("done");
        fflush(stdout);
    }
    return 0;
}
