/* waits.c - waits MODE HOST PORT: one blocking connect() that has to wait
 *
 * plain: no handler             handler: SIGUSR1 has one, without SA_RESTART
 * restart: with SA_RESTART      timeout: SO_SNDTIMEO of 200 ms
 * Prints its pid first, "handled" from the handler, then the result, and tries a second connect(). */
#include <signal.h>
#include <sys/time.h>

#include "say.h"

#define TIMEOUT_US 200000

static void handle(int signo)
{
    static const char text[] = "handled\n";

    (void)signo;
    if (write(STDOUT_FILENO, text, sizeof(text) - 1) < 0)
        _exit(SET_UP_FAILED);
}

int main(int argc, char **argv)
{
    struct address address = address_of(argv[2], argv[3]);
    struct sigaction action = {.sa_handler = handle};
    struct timeval timeout = {.tv_usec = TIMEOUT_US};
    int fd = tcp_socket(&address, 0);
    int result;

    (void)argc;
    if (strcmp(argv[1], "restart") == 0)
        action.sa_flags = SA_RESTART;
    if (strcmp(argv[1], "handler") == 0 || action.sa_flags != 0)
        sure("sigaction", sigaction(SIGUSR1, &action, NULL));
    if (strcmp(argv[1], "timeout") == 0)
        sure("SO_SNDTIMEO", setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout)));
    printf("pid: %d\n", (int)getpid());
    fflush(stdout);
    result = dial(fd, &address);
    say(result, "connect");
    printf("flags: %#o\n", sure("F_GETFL", fcntl(fd, F_GETFL)));
    if (result == 0) {
        say(dial(fd, &address), "connect again");
        return 0;
    }
    puts("waiting");
    fflush(stdout);
    wait_for(fd, POLLOUT);
    say(dial(fd, &address), "connect when done");
    say(dial(fd, &address), "connect when done, again");
    return 0;
}
