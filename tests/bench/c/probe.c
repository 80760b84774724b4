/* probe.c - measure, from inside one program, what its system calls and its connections cost
 *
 * Usage: probe ADDRESS PORT
 * Reads commands, a line each, until its input ends, and answers each with a line of JSON:
 *
 *   ready                                that it runs, and whoever it runs under
 *   socket N | connect N | refused N     times of socket(), and of socket() with connect()
 *   first-byte N                         the same until the server has answered a byte
 *   rate N THREADS                       connects a second, closing included
 *   calls NAME N                         calls a second; calls.c has the names
 *   sendto N | getpeername N             times of calls that some services have intercepted
 *   round-trip N | stream MIB            a connection that is made
 *   fds N | scan | sockets N | processes N     a crowd that stays, and looking through its fdinfo
 *
 * It knows nothing of meshfd; whether its calls are intercepted is up to who starts it. */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "probe.h"

#define LINE_MAX_BYTES 128
#define WORDS_MAX 3

struct sockaddr_in server = {.sin_family = AF_INET};

_Noreturn void fail(const char *what)
{
    fprintf(stderr, "probe: %s: %s\n", what, strerror(errno));
    exit(1);
}

uint64_t now_ns(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

static size_t number(const char *text)
{
    char *end = NULL;
    unsigned long long n = text == NULL ? 0 : strtoull(text, &end, 10);

    if (n == 0 || *end != '\0') {
        errno = EINVAL;
        fail("a number is missing");
    }
    return (size_t)n;
}

static const struct command {
    const char *name;
    void (*run)(size_t n);
} commands[] = {
    {"socket", measure_socket},
    {"connect", measure_connect},
    {"refused", measure_refused},
    {"first-byte", measure_first_byte},
    {"sendto", measure_sendto},
    {"getpeername", measure_getpeername},
    {"round-trip", measure_round_trip},
    {"stream", measure_stream},
    {"fds", open_many},
    {"sockets", hold_sockets},
    {"processes", start_many},
};

static void obey(char **words)
{
    if (strcmp(words[0], "rate") == 0)
        return measure_rate(number(words[1]), number(words[2]));
    if (strcmp(words[0], "calls") == 0 && words[1] != NULL)
        return measure_calls(words[1], number(words[2]));
    if (strcmp(words[0], "scan") == 0)
        return scan_fdinfo();
    if (strcmp(words[0], "ready") == 0) {
        puts("{}");
        return;
    }
    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
        if (strcmp(commands[i].name, words[0]) == 0)
            return commands[i].run(number(words[1]));
    errno = EINVAL;
    fail(words[0]);
}

int main(int argc, char **argv)
{
    char line[LINE_MAX_BYTES];

    if (argc != 3 || inet_pton(AF_INET, argv[1], &server.sin_addr) != 1) {
        fputs("usage: probe ADDRESS PORT\n", stderr);
        return 2;
    }
    server.sin_port = htons((uint16_t)number(argv[2]));
    while (fgets(line, sizeof(line), stdin) != NULL) {
        char *words[WORDS_MAX + 1] = {NULL};
        char *rest = NULL;
        int n = 0;

        for (char *word = strtok_r(line, " \n", &rest); word != NULL && n < WORDS_MAX;
             word = strtok_r(NULL, " \n", &rest))
            words[n++] = word;
        if (n > 0)
            obey(words);
        (void)fflush(stdout);
    }
    end_crowd();
    return 0;
}
