/* again.c - again HOST PORT N: a thread talks to a server that echoes lines, N times, by blocking calls, while
 * another connects the same socket again and again */
#include <pthread.h>

#include "say.h"

static struct {
    int fd;
    int n_left;
    int n_failed;
} talk;

static volatile int done;

static void *talk_on(void *argument)
{
    char line[8];

    for (; talk.n_left > 0; talk.n_left--) {
        sure("write", (int)write(talk.fd, "x\n", 2));
        while (read(talk.fd, line, sizeof(line)) < 0) {
            if (errno != EAGAIN)
                sure("read", -1);
            talk.n_failed++;
        }
    }
    done = 1;
    return argument;
}

int main(int argc, char **argv)
{
    struct address address = address_of(argv[1], argv[2]);
    char greeting[64];
    pthread_t thread;
    int result;
    int n = 0;

    (void)argc;
    talk.fd = tcp_socket(&address, 0);
    talk.n_left = atoi(argv[3]);
    say(dial(talk.fd, &address), "connect");
    sure("read", (int)read(talk.fd, greeting, sizeof(greeting)));
    if (pthread_create(&thread, NULL, talk_on, NULL) != 0)
        sure("pthread_create", -1);
    do {
        result = dial(talk.fd, &address);
        n++;
    } while (!done && result < 0 && errno == EISCONN);
    say(result, "connect again");
    pthread_join(thread, NULL);
    printf("failed to wait: %d\n", talk.n_failed);
    printf("often: %d\n", n > 1);
    return 0;
}
