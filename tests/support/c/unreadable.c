/* unreadable.c - unreadable HOST PORT: connect as a program that other processes may not look into */
#include <sys/prctl.h>

#include "say.h"

int main(int argc, char **argv)
{
    struct address address = address_of(argv[1], argv[2]);
    int fd;

    (void)argc;
    sure("PR_SET_DUMPABLE", prctl(PR_SET_DUMPABLE, 0, 0, 0, 0));
    fd = tcp_socket(&address, 0);
    say(dial(fd, &address), "connect");
    return 0;
}
