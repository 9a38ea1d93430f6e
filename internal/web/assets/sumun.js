// Every page works without this file. It adds what a page alone cannot do: times in the visitor's own zone, a button that
// shows a password, the password rules marked while one is typed, and an end to waiting for others.
"use strict";

function localizeTimes() {
  const lang = document.documentElement.lang;
  const day = new Intl.DateTimeFormat(lang, { dateStyle: "long" });
  const minute = new Intl.DateTimeFormat(lang, { dateStyle: "long", timeStyle: "short" });
  for (const element of document.querySelectorAll("time[data-local]")) {
    const time = new Date(element.dateTime);
    if (!Number.isNaN(time.getTime())) {
      element.title = element.textContent;
      element.textContent = (element.dataset.local === "date" ? day : minute).format(time);
    }
  }
}

function addShowButton(box) {
  const input = box.querySelector("input");
  const button = document.createElement("button");
  const show = (visible) => {
    input.type = visible ? "text" : "password";
    button.textContent = visible ? box.dataset.hide : box.dataset.show;
    button.setAttribute("aria-label", visible ? box.dataset.hideLabel : box.dataset.showLabel);
  };
  button.type = "button";
  button.setAttribute("aria-controls", input.id);
  button.addEventListener("click", () => {
    show(input.type === "password");
    input.focus();
  });
  input.form?.addEventListener("submit", () => show(false)); // so that browsers offer to save it
  show(false);
  input.after(button);
  box.classList.add("secret-ready");
}

// strengthOf turns a verdict into a value of the meter: 1 and 2 are refused, 3 and 4 accepted.
function strengthOf(password, broken) {
  if (broken.size === 0) {
    return [...password].length >= 16 ? 4 : 3;
  }
  return broken.has("password.guessable") || broken.size > 1 ? 1 : 2;
}

function checkWhileTyping(input) {
  const field = input.closest(".field");
  const strength = field.querySelector("[data-strength]");
  const rules = field.querySelectorAll("[data-rule]");
  const words = field.querySelector("[data-kept]")?.dataset;
  let pending;
  let asked;

  const forget = () => {
    strength.querySelector("meter").value = 0;
    strength.querySelector(".strength-word").textContent = "";
    for (const rule of rules) {
      delete rule.dataset.kept;
      rule.querySelector("[data-state]").textContent = "";
    }
  };
  const tell = (broken) => {
    for (const rule of rules) {
      const kept = !broken.has(rule.dataset.rule);
      rule.dataset.kept = kept;
      rule.querySelector("[data-state]").textContent = ` (${kept ? words.kept : words.broken})`;
    }
    const value = strengthOf(input.value, broken);
    strength.querySelector("meter").value = value;
    strength.querySelector(".strength-word").textContent = strength.getAttribute(`data-word-${value}`);
  };
  const ask = async () => {
    asked?.abort();
    asked = new AbortController();
    const body = new URLSearchParams({ password: input.value });
    for (const name of ["token", "email", "name", "user_name"]) {
      const other = input.form.elements.namedItem(name);
      if (other instanceof HTMLInputElement) {
        body.set(name, other.value);
      }
    }
    try {
      const response = await fetch(input.dataset.check, { method: "POST", body, signal: asked.signal });
      if (response.ok) {
        const answer = await response.json();
        tell(new Set(answer.violations.map((violation) => violation.code)));
      } else {
        forget();
      }
    } catch (error) {
      if (error.name !== "AbortError") {
        forget(); // the form itself is checked when it is sent
      }
    }
  };
  strength.hidden = false;
  input.addEventListener("input", () => {
    clearTimeout(pending);
    if (input.value === "") {
      asked?.abort();
      forget();
    } else {
      pending = setTimeout(ask, 300);
    }
  });
}

// sendOnce keeps an impatient second click from sending a form twice.
function sendOnce(form) {
  let sent = false;
  form.addEventListener("submit", (event) => {
    if (sent) {
      event.preventDefault();
      return;
    }
    sent = true;
    event.submitter?.setAttribute("aria-busy", "true");
  });
  addEventListener("pageshow", (event) => {
    if (event.persisted) {
      sent = false;
      form.querySelector("[aria-busy]")?.removeAttribute("aria-busy");
    }
  });
}

// goOnSoon does not wait for frames for ever: the page goes on by itself when all of them have answered.
function goOnSoon(link) {
  setTimeout(() => location.replace(link.href), 4000);
}

localizeTimes();
document.querySelectorAll("[data-secret]").forEach(addShowButton);
document.querySelectorAll("[data-check]").forEach(checkWhileTyping);
document.querySelectorAll("form[method=post]").forEach(sendOnce);
document.querySelector("form[data-submit]")?.requestSubmit();
document.querySelectorAll("a[data-go]").forEach(goOnSoon);
