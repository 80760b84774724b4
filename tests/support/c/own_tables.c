/* own_tables.c - own_tables HOST PORT HOST PORT: threads that have fd tables of their own
 *
 * A thread leaves the shared table by close_range(2), and has its own socket at the number where the
 * others have theirs. Each connects what is at that number, to an address of its own. */
#include <linux/close_range.h>
#include <pthread.h>

#include "say.h"

static struct address first, second;
static int number;
static pthread_barrier_t both;

static void *in_own_table(void *unused)
{
    int fd;

    (void)unused;
    sure("close_range", close_range((unsigned)number, ~0u, CLOSE_RANGE_UNSHARE));
    fd = tcp_socket(&second, 0);
    sure("dup2", dup2(fd, number));
    pthread_barrier_wait(&both);
    pthread_barrier_wait(&both); /* the other one has connected */
    say(dial(number, &second), "connect in the thread");
    say_rest(number, "greeting in the thread");
    return NULL;
}

int main(int argc, char **argv)
{
    pthread_t thread;

    (void)argc;
    first = address_of(argv[1], argv[2]);
    second = address_of(argv[3], argv[4]);
    pthread_barrier_init(&both, NULL, 2);
    number = tcp_socket(&first, 0);
    sure("pthread_create", -pthread_create(&thread, NULL, in_own_table, NULL));
    pthread_barrier_wait(&both);
    sure("CLOSE_RANGE_CLOEXEC",
         close_range((unsigned)number, (unsigned)number, CLOSE_RANGE_CLOEXEC));
    say(dial(number, &first), "connect");
    printf("descriptor flags: %d\n", sure("F_GETFD", fcntl(number, F_GETFD)));
    say_rest(number, "greeting");
    pthread_barrier_wait(&both);
    pthread_join(thread, NULL);
    return 0;
}
