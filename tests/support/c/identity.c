/* identity.c - identity HOST PORT: connect, having said as whom; meant to be installed setuid */
#include "say.h"

int main(int argc, char **argv)
{
    struct address address = address_of(argv[1], argv[2]);
    int fd;

    (void)argc;
    printf("effective user: %d\n", (int)geteuid());
    fflush(stdout);
    fd = tcp_socket(&address, 0);
    say(dial(fd, &address), "connect");
    say_rest(fd, "greeting");
    return 0;
}
