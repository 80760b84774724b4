/* states.c - states MODE HOST PORT: a non-blocking connect and its flags, step by step
 *
 * accepted, refused: until the connection is there, or not, and what further calls say
 * pending: HOST:PORT does not answer; prints "waiting", and goes on when it does
 * flags: every way to ask for O_NONBLOCK and O_CLOEXEC, before and after connect */
#include "say.h"

static void say_flags(int fd, const char *when)
{
    int status = sure("F_GETFL", fcntl(fd, F_GETFL));
    int descriptor = sure("F_GETFD", fcntl(fd, F_GETFD));

    printf("%s: status %#o, descriptor %d\n", when, status, descriptor);
}

static void say_events(int fd)
{
    int revents = wait_for(fd, POLLIN | POLLOUT);

    printf("poll:%s%s%s%s\n", revents & POLLIN ? " in" : "", revents & POLLOUT ? " out" : "",
           revents & POLLERR ? " err" : "", revents & POLLHUP ? " hup" : "");
}

static void finish(int fd, const struct address *address)
{
    wait_for(fd, POLLOUT);
    printf("SO_ERROR: %s\n", name_of(socket_error(fd)));
    printf("SO_ERROR again: %s\n", name_of(socket_error(fd)));
    say(dial(fd, address), "connect when done");
    say(dial(fd, address), "connect when done, again");
    say_flags(fd, "flags");
}

static void begin(int fd, const struct address *address)
{
    int result = dial(fd, address);

    say(result, "connect");
    say_flags(fd, "flags at once");
}

static void refused(const struct address *address)
{
    int fd = tcp_socket(address, SOCK_NONBLOCK);

    begin(fd, address);
    say_events(fd);
    printf("SO_ERROR: %s\n", name_of(socket_error(fd)));
    printf("SO_ERROR again: %s\n", name_of(socket_error(fd)));
    say_flags(fd, "flags");
}

/* The error of a refusal can be had from the next connect() as well. */
static void refused_twice(const struct address *address)
{
    int fd = tcp_socket(address, SOCK_NONBLOCK);

    begin(fd, address);
    say_events(fd);
    say(dial(fd, address), "connect when refused");
}

static void accepted(const struct address *address)
{
    int fd = tcp_socket(address, SOCK_NONBLOCK | SOCK_CLOEXEC);

    begin(fd, address);
    finish(fd, address);
    wait_for(fd, POLLIN);
    say_rest(fd, "greeting");
}

static void pending(const struct address *address)
{
    int fd = tcp_socket(address, SOCK_NONBLOCK);

    begin(fd, address);
    say(dial(fd, address), "connect meanwhile");
    say(dial(fd, address), "connect meanwhile, again");
    printf("SO_ERROR meanwhile: %s\n", name_of(socket_error(fd)));
    puts("waiting");
    fflush(stdout);
    finish(fd, address);
}

static void flags(const struct address *address)
{
    static const int asked[] = {0, SOCK_NONBLOCK, SOCK_CLOEXEC, SOCK_NONBLOCK | SOCK_CLOEXEC};

    for (int i = 0; i < 8; i++) {
        int late = i >= 4; /* by fcntl(2) */
        int how = asked[i % 4];
        int fd = tcp_socket(address, late ? 0 : how);

        if (late && (how & SOCK_NONBLOCK))
            sure("F_SETFL", fcntl(fd, F_SETFL, O_NONBLOCK));
        if (late && (how & SOCK_CLOEXEC))
            sure("F_SETFD", fcntl(fd, F_SETFD, FD_CLOEXEC));
        say_flags(fd, "before");
        say(dial(fd, address), "connect");
        say_flags(fd, "after");
        wait_for(fd, POLLOUT);
        say_flags(fd, "connected");
        close(fd);
    }
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(const struct address *address);
    } modes[] = {
        {"refused", refused},   {"refused-twice", refused_twice},
        {"accepted", accepted}, {"pending", pending},
        {"flags", flags},
    };
    struct address address;

    (void)argc;
    address = address_of(argv[2], argv[3]);
    for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++)
        if (strcmp(argv[1], modes[i].name) == 0) {
            modes[i].run(&address);
            return 0;
        }
    return SET_UP_FAILED;
}
