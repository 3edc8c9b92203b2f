/* SPDX-License-Identifier: MIT */
/*
 * shm_tug: a tug of war in shared memory, invalid on purpose.
 *
 *     left             +-------------------+             right
 *     reads rope <---- | rope: -3          | ----> reads rope
 *     heaves           | pulls: 41 and 38  |           heaves
 *     writes -4  ----> | started           | <---- writes -2
 *                      +-------------------+
 *     arbiter: the rope should be where the pulls say. Is it?
 *     ./shm_tug arbiter
 *     ./shm_tug left & ./shm_tug right &      in another terminal
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LEFT, RIGHT, TO_WIN = 20 /* steps */ };

/* The last line is raced for on purpose, unless the mutex guards it. */
struct game {
    _Atomic int ready, guarded, joined[2];
    pthread_mutex_t mutex;
    int started, rope, pulls[2];
};

static const char *name = "/tug_shm";
static int fd; /* of the object; the arbiter holds its lock while it lives */

static void flush_stdout(void)
{
    if (fflush(stdout) == EOF || ferror(stdout)) err(1, "stdout");
}

static void usage(void)
{
    puts("usage: shm_tug [--name=/NAME] [--lock] [--seconds=N] ROLE\n"
         "ROLE: arbiter (--lock lets all use a mutex), left or right\n"
         "N: the longest game, or the longest wait of a player (10)\n"
         "example: shm_tug arbiter & sleep 1; shm_tug left & shm_tug right");
    flush_stdout();
    exit(0);
}

/* With stdout closed, open() would return 1: printf() would fill the file. */
static void guard_streams(void)
{
    for (int i = STDIN_FILENO; i <= STDERR_FILENO; i++)
        if (fcntl(i, F_GETFD) == -1 && open("/dev/null", O_RDWR) != 0)
            errx(1, "stdout or stderr: closed");
}

/* Only what is still ours: somebody may have removed it, and made another. */
static void remove_game(void)
{
    struct stat status;
    if (fstat(fd, &status) == 0 && status.st_nlink > 0)
        shm_unlink(name); // NOLINT(bugprone-signal-handler): it is unlink(2)
}

static void end_by_signal(int number)
{
    remove_game();
    signal(number, SIG_DFL);
    raise(number);
}

/* With O_CREAT for the arbiter, who takes over what a dead one has left. */
static struct game *open_game(int creation)
{
    int prot = PROT_READ | PROT_WRITE, flags = MAP_SHARED;
    struct game *game;
    struct stat status;
    fd = shm_open(name, O_RDWR | creation, 0600);
    if (fd == -1 && errno != ENOENT) err(1, "%s", name);
    if (fd == -1 || (!creation && flock(fd, LOCK_SH | LOCK_NB) == 0))
        errx(1, "%s: start the arbiter first", name);
    if (fstat(fd, &status) == -1 || !S_ISREG(status.st_mode) ||
        status.st_uid != geteuid() ||
        (status.st_size != sizeof *game && (status.st_size || !creation)))
        errx(1, "%s: not a game of yours", name);
    if (creation) {
        if (flock(fd, LOCK_EX | LOCK_NB) == -1) errx(1, "%s: is taken", name);
        atexit(remove_game);
        errno = posix_fallocate(fd, 0, sizeof *game);
        if (errno != 0) err(1, "%s", name);
    }
    game = mmap(NULL, sizeof *game, prot, flags, fd, 0);
    if (game == MAP_FAILED) err(1, "%s", name);
    return game;
}

/* EOWNERDEAD: the last owner was killed, perhaps between rope and pulls. */
static void lock(struct game *game)
{
    if (!game->guarded || pthread_mutex_lock(&game->mutex) == 0) return;
    if (pthread_mutex_consistent(&game->mutex) != 0) errx(1, "mutex: lost");
    game->rope = game->pulls[RIGHT] - game->pulls[LEFT];
}

static void unlock(struct game *game)
{
    if (game->guarded) pthread_mutex_unlock(&game->mutex);
}

static void play(struct game *game, int side, int seconds)
{
    printf("[%d] waits for the start, at most %d s\n", getpid(), seconds);
    alarm(seconds); /* SIGALRM ends a player to whom nothing happens */
    while (!game->ready) usleep(1000);
    int other = game->joined[side];
    if (other > 0 && kill(other, 0) == 0) errx(1, "%d plays there", other);
    game->joined[side] = getpid();
    if (!game->guarded)
        while (!game->started) continue; /* with -O2, it is read only once */
    while (flock(fd, LOCK_SH | LOCK_NB) == -1) { /* the arbiter has it */
        lock(game);
        if (game->started) {
            alarm(seconds);
            int rope = game->rope;
            usleep(rand() % 10000); /* heave */
            game->rope = rope + (side == LEFT ? -1 : 1);
            game->pulls[side]++;
        }
        unlock(game);
        usleep(rand() % 10000);
    }
    printf("[%d] has pulled %d times\n", getpid(), game->pulls[side]);
}

/* The rope must be where the pulls say. Each update that is lost moves it. */
static void arbitrate(struct game *game, int seconds)
{
    int rope, place = 0, should = 0, off = 0, lost = 0;
    const int live = isatty(STDOUT_FILENO);
    while (!game->joined[LEFT] || !game->joined[RIGHT]) usleep(1000);
    alarm(seconds + 5); /* should a player be stopped while it has the lock */
    lock(game);
    game->started = 1;
    unlock(game);
    for (int frame = 0; frame < 30 * seconds && abs(place) < TO_WIN; frame++) {
        usleep(1000000 / 30);
        lock(game);
        rope = game->rope;
        should = game->pulls[RIGHT] - game->pulls[LEFT];
        unlock(game);
        lost += abs(should - rope - off);
        off = should - rope;
        place = rope < -TO_WIN ? -TO_WIN : rope > TO_WIN ? TO_WIN : rope;
        if (live)
            printf("|%*s#%*s| by the pulls %d, lost %d \r", TO_WIN + place, "",
                   TO_WIN - place, "", should, lost);
    }
    const char *const sides[] = {"left", "nobody", "right"};
    printf("%s%s %s: rope at %d, by the pulls %d: lost about %d of %d\n",
           live ? "\n" : "", sides[1 + (place > 0) - (place < 0)],
           abs(place) < TO_WIN ? "leads" : "wins", should - off, should, lost,
           game->pulls[LEFT] + game->pulls[RIGHT]);
}

static struct game *create_game(int locked)
{
    int ends[] = {SIGALRM, SIGBUS, SIGHUP, SIGINT, SIGPIPE, SIGQUIT, SIGTERM};
    struct game *game = open_game(O_CREAT);
    for (int i = 0; i < 7; i++) signal(ends[i], end_by_signal);
    pthread_mutexattr_t robust;
    memset(game, 0, sizeof *game);
    pthread_mutexattr_init(&robust);
    pthread_mutexattr_setpshared(&robust, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&robust, PTHREAD_MUTEX_ROBUST);
    pthread_mutex_init(&game->mutex, &robust);
    game->guarded = locked;
    game->ready = 1;
    printf("[%d] waits for left and right\n", getpid());
    return game;
}

int main(int argc, char *argv[])
{
    int locked = 0, seconds = 10, option;
    char rest;
    const struct option options[] = {{"help", 0, NULL, 'h'},
                                     {"lock", 0, &locked, 1},
                                     {"name", 1, NULL, 'n'},
                                     {"seconds", 1, NULL, 's'},
                                     {NULL, 0, NULL, 0}};
    while ((option = getopt_long_only(argc, argv, "", options, NULL)) != -1) {
        if (option == 's' &&
            (sscanf(optarg, "%4d%c", &seconds, &rest) != 1 || seconds < 1))
            errx(2, "--seconds=%s: not 1 to 9999", optarg);
        if (option == 'n') name = optarg;
        if (option == 'h') usage();
        if (option == '?') return 2;
    }
    const char *role = argc == optind + 1 ? argv[optind] : "";
    const int left = !strcmp(role, "left"), right = !strcmp(role, "right");
    if (!left && !right && strcmp(role, "arbiter") != 0)
        errx(2, "want arbiter, left or right; try --help");

    guard_streams();
    signal(SIGXFSZ, SIG_IGN);
    setvbuf(stdout, NULL, _IONBF, 0);
    srand(getpid());
    if (left || right)
        play(open_game(0), left ? LEFT : RIGHT, seconds);
    else
        arbitrate(create_game(locked), seconds);
    flush_stdout();
}
