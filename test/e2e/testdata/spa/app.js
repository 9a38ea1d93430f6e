// A program in the browser, as the documentation of npm oidc-client-ts says to write one. The test calls what it holds.
"use strict";

const settings = JSON.parse(document.querySelector("#settings").textContent);
window.manager = new oidc.UserManager({
  ...settings,
  redirect_uri: location.origin + "/callback",
  post_logout_redirect_uri: location.origin + "/bye",
  scope: "openid profile email",
  loadUserInfo: true,
  automaticSilentRenew: false, // the test asks for it
});

const told = (state) => {
  document.querySelector("#state").textContent = state;
  document.body.dataset.state = state;
};

const arrive = async () => {
  switch (location.pathname) {
    case "/callback":
      await manager.signinCallback();
      return "in";
    case "/bye":
      await manager.signoutCallback();
      return "left";
    default:
      return "out";
  }
};

arrive().then(told, (error) => told("failed: " + error.message));
