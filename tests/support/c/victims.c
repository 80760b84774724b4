/* victims.c - victims N HOST PORT SLOW_HOST SLOW_PORT: children that are killed while they connect
 *
 * Each of N children makes sockets and connects them for ever, some to an address that does not
 * answer; it is killed at a random moment, alone or with a sibling thread in a call. Prints the
 * greeting of one last connection, so that "still served" is told. */
#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>

#include "say.h"

#define LIFE_MAX_NS 4000000

static struct address quick, slow;

static void *connect_for_ever(void *unused)
{
    struct linger cut = {.l_onoff = 1};

    (void)unused;
    for (;;) {
        int fd = socket(AF_INET, SOCK_STREAM, 0);

        (void)dial(fd, &quick);
        (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &cut, sizeof(cut));
        close(fd);
    }
    return NULL;
}

static void live(int kind)
{
    pthread_t thread;

    if (kind == 1) /* stuck in connect() */
        (void)dial(socket(AF_INET, SOCK_STREAM, 0), &slow);
    if (kind == 2) /* only ever makes sockets */
        for (;;)
            close(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (kind == 3)
        sure("pthread_create", -pthread_create(&thread, NULL, connect_for_ever, NULL));
    connect_for_ever(NULL);
}

int main(int argc, char **argv)
{
    int n = atoi(argv[1]);
    int fd;

    (void)argc;
    quick = address_of(argv[2], argv[3]);
    slow = address_of(argv[4], argv[5]);
    srand(1);
    for (int i = 0; i < n; i++) {
        struct timespec life = {.tv_nsec = rand() % LIFE_MAX_NS};
        pid_t child = sure("fork", fork());

        if (child == 0)
            live(i % 4);
        nanosleep(&life, NULL);
        sure("kill", kill(child, SIGKILL));
        sure("waitpid", waitpid(child, NULL, 0));
    }
    fd = tcp_socket(&quick, 0);
    say(dial(fd, &quick), "connect");
    say_rest(fd, "greeting");
    return 0;
}
