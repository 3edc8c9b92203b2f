/* SPDX-License-Identifier: MIT */
/*
 * shm_tug: a tug of war in shared memory, with a race on purpose.
 *
 *     left                                  right
 *     loads 7   <----  +-----------+  ---->  loads 7
 *     heaves           |  the rope |         heaves
 *     stores 6  ---->  +-----------+  <----  stores 8     8, and not 7
 *
 *     ./shm_tug arbiter
 *     ./shm_tug left & ./shm_tug right &      in a second terminal
 *
 * shm_open(3), lockf(3), alarm(2), pthread_mutexattr_setrobust(3)
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* To experiment, change these lines or use the options. */
static int longest_heave = 15000; /* microseconds */
static long seconds = 10;         /* of the game, or of waiting for it */
enum { TO_WIN = 20 };             /* steps from the middle */

struct game {
    int kind;             /* 0 in a new object, TUG in a game */
    int started;          /* not atomic, on purpose */
    _Atomic int over;     /* if 1, no player begins another pull */
    _Atomic int rope;     /* left pulls it below 0 */
    _Atomic int pulls[2]; /* by left, by right */
    _Atomic int lost[2];  /* steps overwritten by left, by right */
    int locked;           /* each pull needs the mutex */
    pthread_mutex_t mutex;
};
enum { TUG = 0x677574 };
static struct game *game;
static enum { LEFT, RIGHT, ARBITER } role;
static const char *name = "/tug_shm";
static int fd, lock_option, die;

static int seats(int command, int first, int count);
static void play(void);
static void arbitrate(void);
static void parse_options(int argc, char *argv[]);

int main(int argc, char *argv[])
{
    parse_options(argc, argv);
    setvbuf(stdout, NULL, _IONBF, 0);
    srand(getpid());

    fd = shm_open(name, role == ARBITER ? O_RDWR | O_CREAT : O_RDWR, 0600);
    if (fd == -1 && errno == ENOENT)
        errx(1, "%s: start the arbiter first", name);
    if (fd == -1) err(1, "%s", name);
    game = mmap(NULL, sizeof *game, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (game == MAP_FAILED) err(1, "%s: mmap", name);

    if (role == ARBITER) arbitrate();
    if (role != ARBITER) play();
    if (ferror(stdout) || fclose(stdout) == EOF)
        errx(1, "writing to stdout failed");
}

/* The load and the store are atomic, but the opponent can store between them.
   atomic_exchange() stores a value and returns the value that it overwrites. */
static void pull(void)
{
    const int step = role == LEFT ? -1 : 1;
    int rope = game->rope;
    usleep(rand() % (longest_heave + 1));
    const int before = atomic_exchange(&game->rope, rope + step);

    if (abs(before) >= TO_WIN) { /* the opponent has already won */
        game->rope = before;
        return;
    }
    if (die && game->pulls[role] == 4) raise(SIGKILL);
    game->pulls[role]++;
    game->lost[role] += abs(before - rope);
    if (abs(rope + step) >= TO_WIN) game->over = 1;
}

static void check(int error)
{
    if (error != 0) errx(1, "%s: %s", name, strerror(error));
}

/* If the owner dies after it moved the rope and before it counted the pull, the
   next process that locks the robust mutex repairs the rope. */
static void lock(void)
{
    int error = pthread_mutex_lock(&game->mutex);
    if (error == EOWNERDEAD) {
        const int should = game->pulls[RIGHT] - game->pulls[LEFT];
        printf("EOWNERDEAD: the rope goes back to %d\n", should);
        game->rope = should;
        error = pthread_mutex_consistent(&game->mutex);
    }
    check(error);
}

static void play(void)
{
    if (seats(F_TEST, ARBITER, 1) == 0)
        errx(1, "%s: start the arbiter first", name);
    if (seats(F_TLOCK, role, 1) == -1) errx(1, "%s: this side is taken", name);
    alarm(seconds); /* SIGALRM ends a player that waits too long */
    printf("[%d] waits for the start, at most %ld s\n", getpid(), seconds);
    while (!game->started) continue;

    while (!game->over) {
        alarm(seconds);
        if (seats(F_TEST, ARBITER, 1) == 0) errx(1, "the arbiter has ended");
        if (game->locked) lock();
        pull();
        if (game->locked) check(pthread_mutex_unlock(&game->mutex));
        usleep(rand() % (longest_heave + 1));
    }
}

/* A process locks one byte of the object, its seat, for as long as it lives. */
static int seats(int command, int first, int count)
{
    if (lseek(fd, first, SEEK_SET) == -1) err(1, "%s: lseek", name);
    return lockf(fd, command, count);
}

/* Ends the game, and waits until both players have left their seats. */
static void end_game(void)
{
    game->started = 1;
    game->over = 1;
    if (seats(F_LOCK, LEFT, 2) == -1) err(1, "%s: lockf", name);
}

/* A killed arbiter leaves its object, and perhaps players of its game. */
static void begin_game(void)
{
    const off_t size = lseek(fd, 0, SEEK_END);
    if (size != 0 &&
        (size != sizeof *game || (game->kind != 0 && game->kind != TUG)))
        errx(1, "%s: not a game; use another --name", name);
    check(posix_fallocate(fd, 0, sizeof *game));
    if (seats(F_TLOCK, ARBITER, 1) == -1)
        errx(1, "%s: this game has an arbiter already", name);
    end_game();
    *game = (struct game){.kind = TUG, .locked = lock_option};

    /* Shared, it works between processes. Robust, it survives its owner. */
    pthread_mutexattr_t attributes;
    check(pthread_mutexattr_init(&attributes));
    check(pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED));
    check(pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST));
    check(pthread_mutex_init(&game->mutex, &attributes));
    if (seats(F_ULOCK, LEFT, 2) == -1) err(1, "%s: lockf", name);
}

/* '#' is the rope, 'o' is where the pulls say that it should be. */
static void draw(char end)
{
    char ground[] = "-------|-------------------+-------------------|-------";
    enum { EDGE = sizeof ground / 2 - 1 };
    const int rope = game->rope;
    const int should = game->pulls[RIGHT] - game->pulls[LEFT];
    if (abs(should) <= EDGE) ground[EDGE + should] = 'o';
    if (abs(rope) <= EDGE) ground[EDGE + rope] = '#';
    printf("%s # at %d, o at %d   %c", ground, rope, should, end);
}

static void sum_up(void)
{
    const int left = game->pulls[LEFT], right = game->pulls[RIGHT];
    const int by_left = game->lost[LEFT], by_right = game->lost[RIGHT];
    const int rope = game->rope, should = right - left;
    printf("right pulled %d times, left %d times: ", right, left);
    printf("the rope should be at %d\n", should);
    printf("it is at %d: %d steps were lost, ", rope, by_left + by_right);
    printf("%d overwritten by left, %d by right\n", by_left, by_right);
    const char *const winner = rope < 0 ? "left" : "right";
    printf("%s wins\n", abs(rope) < TO_WIN ? "nobody" : winner);
}

static void arbitrate(void)
{
    begin_game();
    printf("[%d] waits for left and right: %d steps win\n", getpid(), TO_WIN);
    while (seats(F_TEST, LEFT, 1) == 0 || seats(F_TEST, RIGHT, 1) == 0)
        usleep(1000);
    usleep(300000); /* let both players find that the game has not started */
    game->started = 1;

    for (long frame = 0; !game->over && frame < 30 * seconds; frame++) {
        if (isatty(STDOUT_FILENO)) draw('\r');
        usleep(1000000 / 30);
    }
    end_game();
    if (isatty(STDOUT_FILENO)) draw('\n');
    sum_up();
    if (shm_unlink(name) == -1) err(1, "%s: shm_unlink", name);
}

static const char usage[] =
    "usage: shm_tug [--die] [--lock] [--name=/NAME] [--seconds=1...3600]\n"
    "               arbiter | left | right";

static void parse_options(int argc, char *argv[])
{
    const struct option options[] = {{"die", no_argument, &die, 1},
                                     {"lock", no_argument, &lock_option, 1},
                                     {"name", required_argument, NULL, 'n'},
                                     {"seconds", required_argument, NULL, 's'},
                                     {0}};
    const char *const roles[] = {"left", "right", "arbiter"};
    char *end = "";
    int option = 0;
    while (option != -1) {
        option = getopt_long_only(argc, argv, "", options, NULL);
        if (option == '?') errx(2, "%s", usage);
        if (option == 'n') name = optarg;
        if (option == 's') seconds = strtol(optarg, &end, 10);
    }
    if (*end != '\0' || seconds < 1 || seconds > 3600) errx(2, "%s", usage);
    const char *word = optind < argc ? argv[optind] : "";
    while (role <= ARBITER && strcmp(word, roles[role]) != 0) role++;
    if (role > ARBITER || argc != optind + 1) errx(2, "%s", usage);
}
