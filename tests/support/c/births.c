/* births.c - births MODE HOST PORT [N]: who connects came to life in an unusual way
 *
 * plain: it did not                vfork: in the parent's memory, before any exec
 * storm: N children at once        spawn: by posix_spawn(3), as "plain"
 * daemon: forked twice, leader of a session, its parents gone
 * Each says what became of it; storm counts its greetings. */
#include <spawn.h>
#include <sys/wait.h>

#include "say.h"

extern char **environ;

static struct address address;
static char **words; /* the command line */

static void plain(void)
{
    int fd = tcp_socket(&address, 0);

    say(dial(fd, &address), "connect");
    say_rest(fd, "greeting");
}

static int is_greeted(void)
{
    char text[64];
    int fd = tcp_socket(&address, 0);

    if (dial(fd, &address) < 0) {
        say(-1, "connect");
        return 0;
    }
    return recv(fd, text, sizeof(text), 0) > 0;
}

static void end_of(pid_t child)
{
    int status = 0;

    sure("waitpid", waitpid(child, &status, 0));
    printf("child: %d\n", status);
    fflush(stdout);
}

static void storm(void)
{
    int n = atoi(words[4]);
    int n_greeted = 0;
    int go[2];
    char byte;

    sure("pipe", pipe(go));
    for (int i = 0; i < n; i++)
        if (sure("fork", fork()) == 0) {
            close(go[1]);
            (void)!read(go[0], &byte, 1); /* all at once, when the parent closes its end */
            _exit(is_greeted() ? 0 : 1);
        }
    close(go[1]);
    for (int i = 0; i < n; i++) {
        int status = 0;

        sure("wait", wait(&status));
        n_greeted += status == 0;
    }
    printf("greeted: %d\n", n_greeted);
}

static void by_vfork(void)
{
    pid_t child = vfork();

    if (child == 0)
        _exit(is_greeted() ? 0 : 1);
    end_of(sure("vfork", child));
    plain();
}

static void by_spawn(void)
{
    char *command[] = {words[0], "plain", words[2], words[3], NULL};
    pid_t child = -1;

    sure("posix_spawn", -posix_spawn(&child, words[0], NULL, NULL, command, environ));
    end_of(child);
}

/* A grandchild is told to wait until both of its ancestors are gone: they hold the other end. */
static void daemonise(void)
{
    int ancestors[2];
    char byte;

    sure("pipe", pipe(ancestors));
    if (sure("fork", fork()) > 0)
        _exit(0);
    sure("setsid", setsid());
    if (sure("fork", fork()) > 0)
        _exit(0);
    close(ancestors[1]);
    (void)!read(ancestors[0], &byte, 1);
    sure("chdir", chdir("/"));
    plain();
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(void);
    } modes[] = {
        {"plain", plain},    {"storm", storm},      {"vfork", by_vfork},
        {"spawn", by_spawn}, {"daemon", daemonise},
    };

    (void)argc;
    words = argv;
    address = address_of(argv[2], argv[3]);
    for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++)
        if (strcmp(argv[1], modes[i].name) == 0) {
            modes[i].run();
            return 0;
        }
    return SET_UP_FAILED;
}
