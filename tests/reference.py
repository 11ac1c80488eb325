"""The papers' equations, transcribed literally: numpy, float64, scalars and loops.

t is the paper's, 1..T; alpha_bar(0) = 1. Nothing here is shared with the package.
"""

import math

import numpy as np

# Variance schedules ---------------------------------------------------------------------------------------------------


def linear(T, beta_1=1e-4, beta_T=0.02):
    return np.array([beta_1 + (beta_T - beta_1) * i / (T - 1) for i in range(T)])


def quadratic(T, beta_1=1e-4, beta_T=0.02):
    return np.array(
        [(math.sqrt(beta_1) + (math.sqrt(beta_T) - math.sqrt(beta_1)) * i / (T - 1)) ** 2 for i in range(T)]
    )


def constant(T, beta_T=0.02):
    return np.array([beta_T] * T)


def warmup(T, share, beta_1=1e-4, beta_T=0.02):
    betas, length = constant(T, beta_T), int(T * share)
    betas[:length] = np.linspace(beta_1, beta_T, length)
    return betas


def jsd(T):
    return np.array([1 / (T - i) for i in range(T)])


def cosine(T):
    def f(t):
        return math.cos((t / T + 0.008) / 1.008 * math.pi / 2) ** 2

    return np.array([min(1 - f(t) / f(t - 1), 0.999) for t in range(1, T + 1)])


def sigmoid(T, beta_1=1e-4, beta_T=0.02):
    return np.array([beta_1 + (beta_T - beta_1) / (1 + math.exp(6 - 12 * i / (T - 1))) for i in range(T)])


# Ho et al. 2020 -------------------------------------------------------------------------------------------------------


class Process:
    def __init__(self, betas):
        self.T = len(betas)
        self.beta = [math.nan, *betas]
        self.alpha_bar = [1.0]
        for beta in betas:
            self.alpha_bar.append(self.alpha_bar[-1] * (1 - beta))

    def diffuse(self, x_0, t, noise):  # Eq. (4)
        return math.sqrt(self.alpha_bar[t]) * x_0 + math.sqrt(1 - self.alpha_bar[t]) * noise

    def mu_tilde(self, x_t, x_0, t):  # Eq. (7)
        a, a_before, beta = self.alpha_bar[t], self.alpha_bar[t - 1], self.beta[t]
        on_x_0 = math.sqrt(a_before) * beta / (1 - a)
        on_x_t = math.sqrt(1 - beta) * (1 - a_before) / (1 - a)
        return on_x_0 * x_0 + on_x_t * x_t

    def beta_tilde(self, t):  # Eq. (7)
        return (1 - self.alpha_bar[t - 1]) / (1 - self.alpha_bar[t]) * self.beta[t]

    def fixed_large(self, t):  # section 3.2, and the code's rule for t = 1
        return math.log(self.beta[t] if t > 1 else self.beta_tilde(2))

    def fixed_small(self, t):
        return math.log(self.beta_tilde(max(t, 2)))

    def mu_of_epsilon(self, x_t, epsilon, t):  # Eq. (11)
        beta = self.beta[t]
        return (x_t - beta / math.sqrt(1 - self.alpha_bar[t]) * epsilon) / math.sqrt(1 - beta)


def respaced(betas, times):
    """The betas of the process that only visits `times`; Nichol & Dhariwal 2021, Eq. (19)."""
    process, new, before = Process(betas), [], 0
    for t in times:
        new.append(1 - process.alpha_bar[t] / process.alpha_bar[before])
        before = t
    return new


def kl(mean_1, log_var_1, mean_2, log_var_2):
    """KL(N_1 || N_2) of scalars, in nats."""
    return 0.5 * (
        -1 + log_var_2 - log_var_1 + math.exp(log_var_1 - log_var_2) + (mean_1 - mean_2) ** 2 * math.exp(-log_var_2)
    )


def decoder_log_prob(x, mean, log_var, cdf):
    """Eq. (13) for one subpixel, with the clamps of the code."""
    std = math.exp(0.5 * log_var)
    upper, lower = cdf((x - mean + 1 / 255) / std), cdf((x - mean - 1 / 255) / std)
    if x < -0.999:
        return math.log(max(upper, 1e-12))
    if x > 0.999:
        return math.log(max(1 - lower, 1e-12))
    return math.log(max(upper - lower, 1e-12))


def tanh_cdf(z):
    return 0.5 * (1 + math.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)))


def exact_cdf(z):
    return 0.5 * math.erfc(-z / math.sqrt(2))


def bound_term(process, x_0, x_t, t, mean, log_var):
    """L_{t-1} of one example in bits/dim: vectors x_0, x_t, mean, log_var; Eq. (5)."""
    total = 0.0
    for i in range(len(x_0)):
        if t == 1:
            total -= decoder_log_prob(x_0[i], mean[i], log_var[i], tanh_cdf)
        else:
            true_mean = process.mu_tilde(x_t[i], x_0[i], t)
            total += kl(true_mean, math.log(process.beta_tilde(t)), mean[i], log_var[i])
    return total / len(x_0) / math.log(2)


def prior_term(process, x_0):
    """L_T of one example in nats; Eq. (5)."""
    a = process.alpha_bar[process.T]
    return sum(kl(math.sqrt(a) * x, math.log(1 - a), 0.0, 0.0) for x in x_0)


def ancestral_step(process, x_t, epsilon, t, log_var, z):  # Algorithm 2, line 4
    return process.mu_of_epsilon(x_t, epsilon, t) + math.exp(0.5 * log_var) * (z if t > 1 else 0.0)


# Nichol & Dhariwal 2021 -----------------------------------------------------------------------------------------------


def learned_range(process, v, t):  # Eq. (15), v in [-1, 1] as the code has it
    share = (v + 1) / 2
    return share * math.log(process.beta[t]) + (1 - share) * process.fixed_small(t)


# Song, Meng & Ermon 2021 ----------------------------------------------------------------------------------------------


def ddim_step(process, x_t, epsilon, t, s, eta, z):  # Eqs. (12) and (16)
    a_t, a_s = process.alpha_bar[t], process.alpha_bar[s]
    sigma = eta * math.sqrt((1 - a_s) / (1 - a_t)) * math.sqrt(1 - a_t / a_s)
    x_0 = (x_t - math.sqrt(1 - a_t) * epsilon) / math.sqrt(a_t)
    return math.sqrt(a_s) * x_0 + math.sqrt(1 - a_s - sigma**2) * epsilon + sigma * z


# Lu et al. 2022: DPM-Solver++(2M), Algorithm 2 ------------------------------------------------------------------------


def dpm_solver(process, x, x_0_of, times):
    """From x at times[0] down to times[-1] > 0; `x_0_of(x, t)` is the data prediction."""

    def alpha(t):
        return math.sqrt(process.alpha_bar[t])

    def sigma(t):
        return math.sqrt(1 - process.alpha_bar[t])

    def lam(t):
        return math.log(alpha(t) / sigma(t))

    history = []
    for i in range(1, len(times)):
        now, then = times[i - 1], times[i]
        history.append(x_0_of(x, now))
        h = lam(then) - lam(now)
        if i == 1:
            D = history[-1]
        else:
            r = (lam(now) - lam(times[i - 2])) / h
            D = (1 + 1 / (2 * r)) * history[-1] - 1 / (2 * r) * history[-2]
        x = sigma(then) / sigma(now) * x - alpha(then) * (math.exp(-h) - 1) * D
    return x


# The U-Net's time embedding -------------------------------------------------------------------------------------------


def time_embedding(t, dim):
    half = dim // 2
    frequencies = [10000 ** (-i / (half - 1)) for i in range(half)]
    return [math.sin(t * f) for f in frequencies] + [math.cos(t * f) for f in frequencies]
