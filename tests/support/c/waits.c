/* waits.c - waits MODE HOST PORT: one blocking connect() that has to wait
 *
 * plain: no handler             handler: SIGUSR1 has one, without SA_RESTART
 * restart: with SA_RESTART      timeout: SO_SNDTIMEO of 200 ms
 * timeout-restart: with SA_RESTART and a SO_SNDTIMEO that is far away
 * thread: as handler, but a second thread connects, and the first has the signal blocked
 * second: the second of two connect() calls waits, with SO_SNDTIMEO
 * Prints its pid first, "handled" from the handler, then the result, and tries a second connect(). */
#include <pthread.h>
#include <signal.h>
#include <sys/time.h>

#include "say.h"

#define TIMEOUT_US 200000
#define FAR_AWAY_S 1000

static void handle(int signo)
{
    static const char text[] = "handled\n";

    (void)signo;
    if (write(STDOUT_FILENO, text, sizeof(text) - 1) < 0)
        _exit(SET_UP_FAILED);
}

static void set_timeout(int fd, time_t seconds, suseconds_t microseconds)
{
    struct timeval timeout = {.tv_sec = seconds, .tv_usec = microseconds};

    sure("SO_SNDTIMEO", setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout)));
}

static void handle_signal(const char *mode)
{
    struct sigaction action = {.sa_handler = handle};

    if (strstr(mode, "restart") != NULL)
        action.sa_flags = SA_RESTART;
    if (strcmp(mode, "handler") == 0 || strcmp(mode, "thread") == 0 || action.sa_flags != 0)
        sure("sigaction", sigaction(SIGUSR1, &action, NULL));
}

/* The first of two: it makes the attempt and does not wait. */
static void dial_first(int fd, const struct address *address)
{
    int flags = sure("F_GETFL", fcntl(fd, F_GETFL));

    sure("F_SETFL", fcntl(fd, F_SETFL, flags | O_NONBLOCK));
    say(dial(fd, address), "connect");
    sure("F_SETFL", fcntl(fd, F_SETFL, flags));
}

struct dialling {
    int fd;
    const struct address *address;
    int result;
    int error;
};

static void *dial_in_thread(void *argument)
{
    struct dialling *dialling = argument;
    sigset_t signals;

    sigemptyset(&signals);
    sigaddset(&signals, SIGUSR1);
    pthread_sigmask(SIG_UNBLOCK, &signals, NULL);
    dialling->result = dial(dialling->fd, dialling->address);
    dialling->error = errno;
    return NULL;
}

static int dial_by_thread(int fd, const struct address *address)
{
    struct dialling dialling = {.fd = fd, .address = address};
    pthread_t thread;
    sigset_t signals;

    sigemptyset(&signals);
    sigaddset(&signals, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &signals, NULL);
    if (pthread_create(&thread, NULL, dial_in_thread, &dialling) != 0)
        sure("pthread_create", -1);
    pthread_join(thread, NULL);
    errno = dialling.error;
    return dialling.result;
}

int main(int argc, char **argv)
{
    const char *mode = argv[1];
    struct address address = address_of(argv[2], argv[3]);
    int fd = tcp_socket(&address, 0);
    int result;

    (void)argc;
    handle_signal(mode);
    if (strcmp(mode, "timeout") == 0 || strcmp(mode, "second") == 0)
        set_timeout(fd, 0, TIMEOUT_US);
    if (strcmp(mode, "timeout-restart") == 0)
        set_timeout(fd, FAR_AWAY_S, 0);
    printf("pid: %d\n", (int)getpid());
    fflush(stdout);
    if (strcmp(mode, "second") == 0)
        dial_first(fd, &address);
    result = strcmp(mode, "thread") == 0 ? dial_by_thread(fd, &address) : dial(fd, &address);
    say(result, strcmp(mode, "second") == 0 ? "connect again" : "connect");
    printf("flags: %#o\n", (unsigned)sure("F_GETFL", fcntl(fd, F_GETFL)));
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
